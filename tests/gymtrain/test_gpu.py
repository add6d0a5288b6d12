"""What holds on a GPU; left out where there is none."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_images import folder_of_images

from gymtrain import Callback, Trainer
from gymtrain.data.augmentors import Augmentation
from gymtrain.registry import BUILTIN, find

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

# Mixing comes last.
AUGMENTORS = sorted(BUILTIN["augmentor"], key=lambda name: (name in {"mixup", "cutmix"}, name))


def on_images(folder: Path, root: Path, training: dict | None = None, model: dict | None = None, **dataset) -> Trainer:
    return Trainer(
        dataset={
            "dataset": {"type": "image_folder", "path": str(folder)},
            "samples": {"train": 0.6, "val": 0.2, "test": 0.2},
            "preprocessors": [
                {"type": "image_resize", "width": 32, "height": 32},
                {"type": "divide"},
                {"type": "normalize"},
            ],
            "data_augmentors": [{"type": "flip"}, {"type": "rotate_range"}, {"type": "random_color"}],
            **dataset,
        },
        model={
            "model": model or {"type": "cnn", "channels": [8, 16]},
            "training": {"epochs": 3, "batch_size": 16, **(training or {})},
        },
        tracking={"root": str(root), "trackers": [], "log_figures": False},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return folder_of_images(tmp_path_factory.mktemp("images"), 200)


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.jpg"))


def test_what_was_trained_on_the_gpu_predicts_nearly_the_same_on_the_cpu(folder, tmp_path):
    trainer = on_images(folder, tmp_path)
    result = trainer.train()
    trainer.save(tmp_path / "x.zip")
    there = trainer.predict_proba(files_of(folder))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        loaded = Trainer.load(tmp_path / "x.zip")
        here = loaded.predict_proba(files_of(folder))

    assert result["execution"]["device"] == "cuda"
    assert np.abs(here - there).max() < 1e-2
    assert Trainer.load(tmp_path / "x.zip").verify()["verdict"] != "different"


class StopAfter(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, state) -> None:
        if state.step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("precision", ["32", "bf16", "16"])
def test_a_training_that_is_resumed_on_the_gpu_ends_with_the_same_bits(folder, tmp_path, precision, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    training = {"precision": precision, "deterministic": True, "checkpoint": {"every_steps": 1}}
    whole = on_images(folder, tmp_path / "whole", training)
    whole.train()

    for step in (3, 11):
        parts = on_images(folder, tmp_path / "parts", training)
        with pytest.raises(KeyboardInterrupt):
            parts.train(callbacks=[StopAfter(step)], resume="auto")
    parts = on_images(folder, tmp_path / "parts", training)
    result = parts.train(resume="auto")

    assert result["metrics"] == whole.result["metrics"]


@pytest.mark.parametrize("model", [{"type": "resnet", "blocks": [1, 1], "width": 8}, {"type": "dogs_vs_cats_cnn"}])
@pytest.mark.parametrize("precision", ["32", "bf16", "16", "bf16-true"])
def test_networks_for_images_train_in_every_precision(folder, tmp_path, model, precision):
    result = on_images(folder, tmp_path, {"epochs": 1, "precision": precision}, model).train()

    assert np.isfinite(result["metrics"]["train/loss"]).all()


def test_a_compiled_step_trains_too(folder, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = on_images(folder, tmp_path, {"compile": True}).train()

    assert result["status"] == "FINISHED"


def test_workers_give_what_the_training_makes_itself(folder, tmp_path):
    own = on_images(folder, tmp_path / "own", {"deterministic": True}, data_augmentors=[{"type": "flip"}])
    handed = on_images(
        folder, tmp_path / "handed", {"deterministic": True, "workers": 2}, data_augmentors=[{"type": "flip"}]
    )

    assert own.train()["metrics"] == handed.train()["metrics"]


class NoWaiting(Callback):
    """From the third step of an epoch on it is an error to wait for the device; reading the loss ends that."""

    def on_step_end(self, state) -> None:
        torch.cuda.set_sync_debug_mode("error" if 2 <= state.step % 8 <= 5 else "default")

    def on_epoch_end(self, state) -> None:
        torch.cuda.set_sync_debug_mode("default")


def test_no_step_waits_for_the_device(folder, tmp_path):
    trainer = on_images(
        folder,
        tmp_path,
        data_augmentors=[{"type": name} for name in AUGMENTORS],
    )
    trainer = Trainer.from_dict(
        trainer.to_dict() | {"tracking": {**trainer.to_dict()["tracking"], "log_every_n_steps": 0}}
    )
    try:
        result = trainer.train(callbacks=[NoWaiting()])
    finally:
        torch.cuda.set_sync_debug_mode("default")

    assert result["status"] == "FINISHED"


@pytest.mark.parametrize("name", AUGMENTORS)
def test_an_augmentor_does_the_same_on_the_gpu_as_on_the_cpu(name):
    augmentor = find("augmentor", name)()
    augmentor.probability = 1.0
    augmentation = Augmentation([augmentor], seed=0, pixel_range=(0.0, 255.0))
    images = torch.nn.functional.interpolate(
        torch.rand(32, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 255, size=(44, 44), mode="bilinear"
    ).movedim(1, -1)
    ids = torch.arange(32)

    here, there = augmentation(images, 1, ids), augmentation(images.cuda(), 1, ids).cpu()

    # A pixel at an edge may fall on its other side: what is compared is nearly all of them.
    assert here.shape == there.shape
    assert torch.quantile((here - there).abs().flatten()[::7], 0.99) < 1.0
