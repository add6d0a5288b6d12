from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from drawn_images import folder_of_images
from typer.testing import CliRunner, Result

from gymtrain.cli import app
from gymtrain.specs import Experiment
from gymtrain.trainer import preview, training_run
from gymtrain.training.batches import Batches


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The figures themselves, by name; they are not rendered."""
    seen: dict[str, Any] = {}

    class Looking(training_run.Report):
        def figure(self, figure: Any, name: str, step: int = 0) -> None:
            seen[name] = figure

    monkeypatch.setattr("gymtrain.trainer.training_run.Report", Looking)
    return seen


def spec_of(folder: Path, **dataset: Any) -> dict[str, Any]:
    return {
        "dataset": {
            "dataset": {"type": "image_folder", "path": str(folder)},
            "samples": {"train": 0.5, "test": 0.5},
            "preprocessors": [{"type": "image_resize", "width": 16, "height": 12}, {"type": "divide"}],
            "data_augmentors": [{"type": "flip"}, {"type": "random_color", "probability": 1.0}],
            "image_cache_gb": 0,
            **dataset,
        },
        "model": {"model": {"type": "cnn", "channels": [2]}, "training": {"epochs": 1, "batch_size": 8}},
    }


def image_of(axes: Any) -> np.ndarray:
    return np.asarray(axes.images[0].get_array())


@pytest.mark.slow
def test_what_the_model_gets_of_the_first_samples_is_drawn_beside_what_they_are(kept, shapes, shown, monkeypatch):
    taken = {}
    batch_of = Batches._batch

    def looking(self, number, rows, inputs, *others):
        batch = batch_of(self, number, rows, inputs, *others)
        taken.update({int(row): image for row, image in zip(rows, batch.inputs, strict=True)})
        return batch

    monkeypatch.setattr(Batches, "_batch", looking)
    spec = spec_of(shapes)
    trainer, _ = kept(
        spec["dataset"].pop("dataset"),
        spec["model"]["model"],
        spec["model"]["training"],
        tracking={"log_figures": True},
        **spec["dataset"],
    )

    trainer.train()

    axes = shown["augmented"].axes
    assert [each.get_ylabel() for each in axes if each.get_ylabel()] == ["original", "epoch 1"]
    assert {each.get_title() for each in axes[:8]} == {"circle", "square"}
    assert len(axes) == 16
    for row in range(8):
        np.testing.assert_allclose(image_of(axes[8 + row]), taken[row].numpy(), atol=1e-6)
        assert image_of(axes[row]).shape == (12, 16, 3)
    # Mistakes are shown as they were decoded, in colour.
    mistakes = shown["mistakes"].axes
    files = [
        np.asarray(PIL.Image.open(file).resize((16, 12), PIL.Image.Resampling.BILINEAR)) for file in files_of(shapes)
    ]
    for each in mistakes:
        assert any(np.abs(image_of(each) * 255 - file).max() < 1e-6 for file in files)


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.jpg"))


def run(spec: dict[str, Any], tmp_path: Path, *options: object) -> Result:
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    return CliRunner().invoke(app, ["preview", str(tmp_path / "spec.json"), *map(str, options)])


def test_the_command_writes_a_picture_and_trains_nothing(shapes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    result = run(spec_of(shapes), tmp_path)
    named = run(spec_of(shapes), tmp_path, "--output", "small.png", "--samples", 2, "--epochs", 1)

    assert (result.exit_code, result.stdout) == (0, "preview.png\n"), result.output
    assert named.exit_code == 0
    with PIL.Image.open("preview.png") as large, PIL.Image.open("small.png") as small:
        assert large.width > small.width
        assert large.height > small.height
    assert sorted(each.name for each in tmp_path.iterdir()) == ["preview.png", "small.png", "spec.json"]


def test_the_command_says_why_there_is_no_picture(shapes, tmp_path):
    place = tmp_path / "x.png"
    rows = {"dataset": {"dataset": "iris"}, "model": {"model": "linear"}}

    assert "rows have the shape (4,); expected images" in run(rows, tmp_path, "--output", place).stderr
    assert (
        "the picture is a PNG; got 'x.jpg', name it .png" in run(spec_of(shapes), tmp_path, "--output", "x.jpg").stderr
    )
    assert "Would replace" in run(spec_of(shapes), tmp_path, "--output", tmp_path / "spec.json").stderr
    assert "dataset.path: " in run(spec_of(shapes, dataset={"type": "image_folder"}), tmp_path).stderr
    assert not place.exists()


def test_samples_are_mixed_with_each_other_and_differ_from_epoch_to_epoch(shapes):
    figure = preview.preview(Experiment(**spec_of(shapes, data_augmentors=[{"type": "mixup"}])), samples=4, epochs=2)

    images = np.stack([image_of(each) for each in figure.axes]).reshape(3, 4, 12, 16, 3)
    assert len({image.tobytes() for image in images.reshape(12, -1)}) == 12


def test_without_augmentors_the_samples_are_drawn_as_they_are(shapes):
    figure = preview.preview(Experiment(**spec_of(shapes, data_augmentors=[])), samples=3)

    assert [each.get_ylabel() for each in figure.axes] == ["original", "", ""]


def test_numbers_that_are_no_pixels_are_drawn_from_the_least_to_the_greatest(tmp_path):
    spec = {
        "dataset": {
            "dataset": {"type": "digits", "images": True},
            "data_augmentors": [{"type": "invert", "probability": 1.0}],
        },
        "model": {"model": "linear"},
    }

    figure = preview.preview(Experiment(**spec), samples=2, epochs=1)

    first, _, inverted, _ = map(image_of, figure.axes)
    assert (first.min(), first.max()) == (0.0, 1.0)
    np.testing.assert_allclose(inverted, 1 - first)


def test_drawing_leaves_the_generators_of_the_caller_alone(tmp_path):
    folder_of_images(tmp_path / "photos", 8)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)

    preview.preview(Experiment(**spec_of(tmp_path / "photos")))

    assert torch.equal(torch.rand(2), expected)
