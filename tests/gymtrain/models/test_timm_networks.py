"""Networks of timm: they run where it can be imported, which its torchvision prevents beside the CPU build of torch."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from little_shapes import shapes
from safetensors.torch import save_file

from gymtrain import MissingDependencyError, SpecError, Trainer
from gymtrain.models.timm_networks import timm_network


def has_timm() -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import timm  # noqa: F401
    except (ImportError, RuntimeError):
        return False
    return True


needs_timm = pytest.mark.skipif(not has_timm(), reason="timm cannot be imported")
MODEL = {"type": "timm", "name": "test_resnet"}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def trainer_of(tmp_path):
    def make(training: dict[str, Any], model: dict[str, Any] = MODEL) -> Trainer:
        X, y = shapes(64, 32, ("circle", "cross", "stripes"))
        return Trainer(
            dataset={"dataset": {"type": "arrays", "X": X, "y": y}},
            model={"model": model, "training": {"max_steps": 2, "batch_size": 16, **training}},
            tracking={"root": str(tmp_path / "runs"), "trackers": [], "log_figures": False},
        )

    return make


def test_without_timm_the_message_says_how_it_is_installed(monkeypatch, trainer_of):
    monkeypatch.setitem(sys.modules, "timm", None)

    with pytest.raises(MissingDependencyError, match=r"model\.model: timm cannot be imported .*'gymtrain\[timm\]'"):
        trainer_of({}).train()


def test_a_torchvision_of_another_build_is_told_of(monkeypatch, trainer_of, tmp_path):
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(
        MissingDependencyError, match=r"torchvision::nms does not exist\): it is of another build than tor"
    ):
        trainer_of({}).train()


@pytest.mark.parametrize(
    ("arguments", "path", "message"),
    [
        ({"weights": "x.safetensors"}, "weights", r"weights of a file are given as model\.training\.start_from"),
        (
            {"checkpoint_path": "x.pth"},
            "checkpoint_path",
            r"weights of a file are given as model\.training\.start_from",
        ),
        ({"pretrained_cfg": {"file": "x.pth"}}, "pretrained_cfg", r"weights of a file are given as"),
        ({"num_classes": 3}, "num_classes", r"follows from the data; leave it out"),
        ({"in_chans": 3}, "in_chans", r"follows from the data; leave it out"),
        (
            {"name": "hf-hub:somebody/network"},
            "name",
            r"got 'hf-hub:somebody/network'; expected the name of a network, no",
        ),
        ({"name": "local-dir:/tmp"}, "name", r"got .*; expected the name of a network, no place of one"),
    ],
)
def test_what_a_spec_may_not_say_is_refused_before_timm_is_imported(monkeypatch, arguments, path, message):
    monkeypatch.setitem(sys.modules, "timm", None)

    with pytest.raises(SpecError, match=rf"model\.model\.{path}: {message}"):
        timm_network(input_shape=(8, 8, 3), output_size=2, **{"name": "resnet18", **arguments})


@needs_timm
def test_a_network_learns_and_comes_back_out_of_a_bundle_with_the_names_of_timm(trainer_of, tmp_path):
    trainer = trainer_of({})
    trainer.train()
    trainer.save(tmp_path / "model.zip")
    X, _ = shapes(40, 32, seed=1)

    loaded = Trainer.load(tmp_path / "model.zip")

    expected = trainer.predict_proba(X)
    assert loaded.predict_proba(X).tobytes() == expected.tobytes()
    assert (
        np.concatenate([trainer.predict_proba(X[row : row + 1]) for row in range(9)]).tobytes()
        == expected[:9].tobytes()
    )
    assert "conv1.0.weight" in trainer._predictor.learner.module.state_dict() or "conv1.weight" in (
        trainer._predictor.learner.module.state_dict()
    )


@needs_timm
def test_weights_of_a_file_are_begun_with(trainer_of, tmp_path):
    import timm

    donor = timm.create_model("test_resnet", num_classes=7)
    save_file(donor.state_dict(), tmp_path / "donor.safetensors")
    start = {"path": tmp_path / "donor.safetensors", "replace": ["fc.*"]}
    trainer = trainer_of({"start_from": start, "freeze": ["conv1.*", "layer?.*", "bn1.*"]})

    trainer.train()

    own = trainer._predictor.learner.module.state_dict()
    assert all(
        torch.equal(own[name], tensor) for name, tensor in donor.state_dict().items() if not name.startswith("fc")
    )


@needs_timm
@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 1), (32, 32, 3)], ids=str)
def test_images_may_have_any_number_of_channels(shape):
    network = timm_network(input_shape=shape, output_size=2, name="test_resnet").eval()

    assert network(torch.zeros(3, *shape)).shape == (3, 2)


@needs_timm
def test_arguments_of_timm_are_handed_on():
    network: Any = timm_network(
        input_shape=(32, 48, 3), output_size=2, name="vit_tiny_patch16_224", img_size=[32, 48], depth=1, drop_rate=0.25
    )

    assert network(torch.zeros(1, 32, 48, 3)).shape == (1, 2)
    assert network.head_drop.p == 0.25


@needs_timm
def test_a_name_that_timm_does_not_have_is_told_the_nearest():
    with pytest.raises(SpecError, match=r"model\.model\.name: timm has no network 'resnet81'; did you mean 'resnet\d+"):
        timm_network(input_shape=(8, 8, 3), output_size=2, name="resnet81")


@needs_timm
def test_a_bundle_is_loaded_and_a_training_gone_on_with_without_a_download(monkeypatch, trainer_of, tmp_path):
    import timm

    asked = []
    create = timm.create_model
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda name, pretrained, **arguments: asked.append(pretrained) or create(name, pretrained=False, **arguments),
    )
    trainer = trainer_of({"checkpoint": {}}, {**MODEL, "pretrained": True})
    trainer.train()
    trainer.save(tmp_path / "model.zip")
    began = len(asked)

    Trainer.load(tmp_path / "model.zip")
    trainer.train(resume="auto")

    assert asked[0] is True
    assert set(asked[began:]) == {False}


@needs_timm
@pytest.mark.slow
def test_a_network_is_exported_to_onnx(trainer_of, tmp_path):
    trainer = trainer_of({})
    trainer.train()

    trainer.save(tmp_path / "model.zip", portable=True)  # compares the two

    assert (tmp_path / "model.zip").exists()
