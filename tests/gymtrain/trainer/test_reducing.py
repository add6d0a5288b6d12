from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_forge import take_apart
from safetensors.torch import load as load_tensors

from gymtrain import BundleError, SaveError, Trainer, inspect
from gymtrain.bundle import open_bundle, to_numpy
from gymtrain.trainer.reducing import enlarged, reduced

CNN = {"type": "cnn", "channels": [4], "hidden": [16]}
SHARED = "user_shared_weights:Shared"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A trainer of images with a test part."""
    trainer = Trainer(
        dataset={
            "dataset": {"type": "digits", "images": True},
            "samples": {"train": 0.5, "val": 0.2, "test": 0.3},
            "preprocessors": ["standard_scaler"],
        },
        model={"model": CNN, "training": {"epochs": 2}},
        tracking={"root": str(tmp_path_factory.mktemp("digits")), "log_figures": False},
    )
    trainer.train()
    return trainer


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return load_tensors(take_apart(path.read_bytes()).part("weights.safetensors").content)


@pytest.mark.parametrize(("dtype", "name"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("int8", torch.int8)])
def test_a_smaller_bundle_predicts_nearly_the_same_and_says_what_changed(digits, tmp_path, dtype, name):
    digits.save(tmp_path / "whole.zip")
    digits.save(tmp_path / "small.zip", dtype=dtype)
    whole, small = weights_of(tmp_path / "whole.zip"), weights_of(tmp_path / "small.zip")
    held = digits._predictor.held_out

    loaded = Trainer.load(tmp_path / "small.zip")

    matrices = [key for key, tensor in whole.items() if tensor.ndim > 1 or dtype != "int8"]
    assert {small[key].dtype for key in matrices} == {name}
    assert sum(map(size, small.values())) < (0.3 if dtype == "int8" else 0.51) * sum(map(size, whole.values()))
    module = loaded._predictor.learner.module
    assert {tensor.dtype for tensor in module.state_dict().values()} == {torch.float32}
    said = inspect(tmp_path / "small.zip")["storage"]["reduced"]
    assert said["to"] == dtype
    assert said["tensors"].keys() == set(matrices)
    metrics = said["change"]["metrics"]
    assert (metrics["part"], metrics["rows"]) == ("test", len(held.inputs)) == ("test", 539)
    assert metrics["values"]["accuracy"]["before"] == digits.result["metrics"]["test/accuracy"]
    assert metrics["values"]["loss"]["before"] == digits.result["metrics"]["test/loss"]
    assert metrics["values"]["loss"]["after"] != metrics["values"]["loss"]["before"]
    loaded._predictor.held_out = held
    assert metrics["values"]["accuracy"]["after"] == pytest.approx(measured(loaded, held)["accuracy"])
    assert metrics["values"]["loss"]["after"] == measured(loaded, held)["loss"]
    assert abs(metrics["values"]["accuracy"]["after"] - metrics["values"]["accuracy"]["before"]) < 0.02
    examples = digits._predictor.examples
    difference = np.abs(loaded.predict_proba(examples) - digits.predict_proba(examples)).max()
    assert 0 < difference < 0.05
    assert said["change"]["scores"] == {"rows": len(examples), "difference": float(difference)}


def size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def measured(trainer, held):
    from gymtrain.trainer.fitting import evaluation_of

    learner = trainer._predictor.learner
    training = trainer._experiment.model.training
    return evaluation_of(learner, training, held.part, held.inputs, held.targets)(learner)


def test_the_self_check_is_that_of_the_reduced_model_and_the_trainer_keeps_its_own(digits, tmp_path):
    examples = digits._predictor.examples
    before = digits.predict_proba(examples)
    digits.save(tmp_path / "small.zip", dtype="int8")

    with open_bundle(tmp_path / "small.zip") as bundle:
        scores = to_numpy(bundle.selfcheck()["scores"])
    loaded = Trainer.load(tmp_path / "small.zip")

    assert loaded.predict_proba(examples).tobytes() == scores.tobytes() != before.tobytes()
    assert digits.predict_proba(examples).tobytes() == before.tobytes()


def test_a_loaded_trainer_has_no_rows_that_were_held_out_and_says_so(digits, tmp_path):
    digits.save(tmp_path / "whole.zip")

    Trainer.load(tmp_path / "whole.zip").save(tmp_path / "small.zip", dtype="bf16")

    change = inspect(tmp_path / "small.zip")["storage"]["reduced"]["change"]
    assert change["metrics"] is None
    assert change["scores"]["rows"] == 8


def test_what_was_rounded_is_rounded_to_the_same_again(digits, tmp_path):
    for dtype in ("bf16", "fp16"):
        digits.save(tmp_path / "first.zip", dtype=dtype)
        Trainer.load(tmp_path / "first.zip").save(tmp_path / "second.zip", dtype=dtype)

        first, second = (weights_of(tmp_path / name) for name in ("first.zip", "second.zip"))
        assert all(torch.equal(first[name], second[name]) for name in first | second)


def test_shared_weights_are_reduced_once(tiny, tmp_path):
    trainer = tiny(model={"type": SHARED})
    trainer.train()
    trainer.save(tmp_path / "small.zip", dtype="int8")

    module = Trainer.load(tmp_path / "small.zip", trust=[SHARED])._predictor.learner.module

    storage = inspect(tmp_path / "small.zip")["storage"]
    assert storage["reduced"]["tensors"].keys() == {"encode.weight", "head.weight"}
    assert module.encode.weight is module.decode.weight
    assert torch.equal(module.first_rows, module.encode.weight[:2])


def test_without_a_test_part_the_val_part_is_held_out(tiny, tmp_path):
    trainer = tiny("diabetes", "linear", {"epochs": 1, "validation_split": 0.2}, samples={"train": 1.0})
    result = trainer.train()
    trainer.save(tmp_path / "small.zip", dtype="bf16")

    metrics = inspect(tmp_path / "small.zip")["storage"]["reduced"]["change"]["metrics"]

    assert metrics["part"] == "val"
    assert metrics["values"]["loss"]["before"] == result["best"]["value"]


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        ("int4", r"^dtype: got 'int4'; expected one of 'bf16', 'fp16', 'int8', or None"),
        (16, r"^dtype: got 16; expected"),
        (
            "fp16",
            r"^dtype: 1 values of '0\.weight' are too large for 'fp16', up to 7e\+04, where 6\.55e\+04 is the most",
        ),
    ],
)
def test_a_dtype_that_does_not_do_is_refused_and_nothing_written(tiny, tmp_path, dtype, message):
    trainer = tiny()
    trainer.train()
    with torch.no_grad():
        trainer._predictor.learner.module[0].weight[0, 0] = 70000.0

    with pytest.raises(SaveError, match=message):
        trainer.save(tmp_path / "small.zip", dtype=dtype)
    assert not (tmp_path / "small.zip").exists()


def test_a_model_of_another_library_is_not_reduced(tiny, tmp_path):
    trainer = tiny(model={"type": "sklearn", "estimator": "GaussianNB"}, training={})
    trainer.train()

    with pytest.raises(SaveError, match=r"^dtype: 'sklearn' is no torch module; leave dtype out"):
        trainer.save(tmp_path / "small.zip", dtype="int8")


def test_masks_have_no_scale_and_stay_as_they_are_and_numbers_may_be_too_large_for_one():
    mask = torch.tensor([[0.0, -float("inf")]])

    assert reduced({"mask": mask}, "int8") == ({"mask": mask}, {})
    with pytest.raises(SaveError, match=r"^dtype: 'w' has values that are too large for 'int8'"):
        reduced({"w": torch.tensor([[1e300, 1.0]], dtype=torch.float64)}, "int8")


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "int8"])
def test_every_tensor_comes_back_in_its_own_type_and_near(dtype):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 2, 5, generator=generator)
    state = {
        "float": weight,
        "double": weight.double(),
        "half": weight.half(),
        "vector": weight[0, 0],
        "number": torch.tensor(3.5),
        "zeros": torch.zeros(2, 2),
        "tiny": torch.full((1, 2), 1e-44),
        "no rows": torch.zeros(0, 4),
        "no columns": torch.zeros(4, 0),
        "integers": torch.arange(4).reshape(2, 2),
        "flags": torch.tensor([[True]]),
        "complex": torch.zeros(1, 1, dtype=torch.complex64),
        "float:scale": weight,
    }

    tensors, said = reduced(state, dtype)
    again = enlarged(tensors, json.loads(json.dumps(said)))

    assert again.keys() == state.keys()
    for name, tensor in state.items():
        assert (again[name].dtype, again[name].shape) == (tensor.dtype, tensor.shape), name
        torch.testing.assert_close(again[name], tensor, rtol=0.01, atol=0.02)
    assert torch.equal(again["zeros"], state["zeros"])
    assert torch.equal(again["integers"], state["integers"])


INT8 = {"w": torch.zeros(2, 3, dtype=torch.int8), "s": torch.zeros(2), "h": torch.zeros(2, dtype=torch.bfloat16)}


@pytest.mark.parametrize(
    "said",
    [
        [],
        {"x": {"dtype": "F32"}},
        {"h": "F32"},
        {"h": {}},
        {"h": {"dtype": "I64"}},
        {"h": {"dtype": ["F32"]}},
        {"h": {"dtype": "F32", "more": 1}},
        {"s": {"dtype": "F32"}},
        {"w": {"dtype": "F32"}},
        {"w": {"dtype": "F32", "scale": "nowhere"}},
        {"w": {"dtype": "F32", "scale": ["s"]}},
        {"w": {"dtype": "F32", "scale": "h"}},
        {"w": {"dtype": "F32", "scale": "w"}},
        {"h": {"dtype": "F32", "scale": "s"}},
    ],
    ids=str,
)
def test_what_a_file_says_of_other_tensors_is_refused(said):
    with pytest.raises(BundleError, match=r"^storage\.json: reduced\.tensors: ") as caught:
        enlarged(INT8, said)
    assert caught.value.reason == "inconsistent"


def test_a_file_with_the_weights_of_another_type_is_refused(digits, tmp_path):
    path = tmp_path / "small.zip"
    digits.save(path, dtype="int8")
    forge = take_apart(path.read_bytes())
    said = json.loads(forge.part("storage.json").content)
    for changed in ({}, {"reduced": []}, {"reduced": {}}, {"reduced": {**said["reduced"], "tensors": {}}}):
        path.write_bytes(forge.replace("storage.json", json.dumps(changed).encode()).pack())

        with pytest.raises(BundleError, match=r"storage\.json|weights\.safetensors"):
            Trainer.load(path)


@pytest.mark.parametrize("rounded", ["int8", {}, [8], [["int8"]], ["int4"]])
def test_what_a_file_says_of_earlier_rounding_is_refused(digits, tmp_path, rounded):
    path = tmp_path / "small.zip"
    digits.save(path, dtype="int8")
    forge = take_apart(path.read_bytes())
    said = {**json.loads(forge.part("storage.json").content), "rounded": rounded}
    path.write_bytes(forge.replace("storage.json", json.dumps(said).encode()).pack())

    with pytest.raises(BundleError, match=r"storage\.json: rounded: expected a list of 'bf16'") as caught:
        Trainer.load(path)
    assert caught.value.reason == "inconsistent"


def test_of_a_large_part_some_rows_are_kept(monkeypatch, digits):
    from gymtrain.trainer import held_out

    monkeypatch.setattr(held_out, "MAX_VALUES", 64 * 100)

    class Data:
        inputs = {"val": np.arange(64 * 1000, dtype=np.float32).reshape(1000, 8, 8)}
        targets = {"val": np.arange(1000)}

        @classmethod
        def ready(cls, part, positions):
            return cls.inputs[part][positions]

    kept = held_out.held_out(Data)

    assert len(kept.inputs) == len(kept.targets) == 100
    assert (kept.targets[0], kept.targets[-1]) == (0, 999)
    assert (kept.inputs[:, 0, 0] == kept.targets * 64).all()
