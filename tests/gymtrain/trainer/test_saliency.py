from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from torch import nn
from typer.testing import CliRunner

from gymtrain import Trainer
from gymtrain.cli import app
from gymtrain.errors import InputError, NotTrainedError, TaskError


class Brightest(nn.Module):
    """Looks for one place in the image, and says what is there."""

    def __init__(self, output_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),
            *(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, output_size)),
        )

    def forward(self, images):
        return self.layers(images.movedim(-1, 1))


def noise(rows: int, seed: int, *, with_shape: bool) -> tuple[np.ndarray, np.ndarray]:
    """Dark noise, uint8 (rows, 24, 24, 3), with a bright square somewhere or not, and where that is, bool."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (rows, 24, 24, 3), dtype=np.uint8)
    where = np.zeros((rows, 24, 24), bool)
    for row in range(rows if with_shape else 0):
        top, left = rng.integers(0, 16, 2)
        where[row, top : top + 8, left : left + 8] = True
    images[where] = (255, 220, 60)
    return images, where


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    X = np.concatenate([noise(80, 0, with_shape=True)[0], noise(80, 1, with_shape=False)[0]])
    trainer = Trainer(
        dataset={
            "dataset": {"type": "arrays", "X": X, "y": ["square"] * 80 + ["noise"] * 80},
            "preprocessors": ["divide"],
        },
        model={
            "model": {"type": Brightest},
            "training": {"epochs": 10, "batch_size": 16, "optimizer": {"type": "adam", "lr": 0.02}},
        },
        tracking={"root": str(tmp_path_factory.mktemp("runs"))},
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("samples", [0, 20])
def test_the_map_lies_on_what_was_learned(trained, samples):
    images, where = noise(30, 7, with_shape=True)

    maps = trained.saliency(images, samples=samples)

    assert (trained.predict(images) == "square").all()
    assert maps.shape == (30, 24, 24)
    assert maps.dtype == np.float32
    assert maps.min() == 0
    assert (maps.max(axis=(1, 2)) == 1).all()
    # Of the area of an image, the square has a ninth.
    assert ((maps * where).sum(axis=(1, 2)) / maps.sum(axis=(1, 2))).mean() > 0.6


def test_the_same_noise_comes_again_for_any_rows_and_another_for_another_seed(trained):
    images, _ = noise(5, 7, with_shape=True)

    maps = trained.saliency(images, samples=4)

    np.testing.assert_array_equal(trained.saliency(images, samples=4), maps)
    np.testing.assert_allclose(trained.saliency(images[3:4], samples=4)[0], maps[3], atol=1e-5)
    assert (trained.saliency(images, samples=4, seed=1) != maps).any()


def test_a_map_is_the_gradient_of_the_output_that_is_asked_for(tmp_path):
    X = np.random.default_rng(0).random((30, 4, 5), dtype=np.float32)
    trainer = Trainer(
        dataset={"dataset": {"type": "arrays", "X": X, "y": np.array(["a", "b", "c"])[np.arange(30) % 3]}},
        model={"model": "linear", "training": {"epochs": 1}},
        tracking={"root": str(tmp_path / "runs")},
    )
    trainer.train()
    trainer.save(tmp_path / "model.zip")
    weights = next(iter(trainer._predictor.learner.save().values()))
    by_class = dict(zip("abc", np.abs(weights.numpy().reshape(3, 4, 5)), strict=True))

    for name, weight in by_class.items():
        np.testing.assert_allclose(trainer.saliency(X[:2], name), np.stack([weight / weight.max()] * 2), rtol=1e-6)
    best = trainer.predict(X)
    expected = np.stack([by_class[name] / by_class[name].max() for name in best])
    np.testing.assert_allclose(trainer.saliency(X), expected, rtol=1e-6)
    np.testing.assert_array_equal(Trainer.load(tmp_path / "model.zip").saliency(X), trainer.saliency(X))


def test_an_output_of_a_regression_is_asked_for_by_its_place(tiny):
    X = np.random.default_rng(0).random((20, 4, 5), dtype=np.float32)
    trainer = tiny({"type": "arrays", "X": X, "y": X.reshape(20, 20)[:, :2]})
    trainer.train()

    assert trainer.saliency(X[:3], 1).shape == (3, 4, 5)
    with pytest.raises(InputError, match=r"target: got None; expected one of 0, 1"):
        trainer.saliency(X[:3])


def test_an_overlay_is_red_where_the_map_is_large(trained):
    images, where = noise(6, 7, with_shape=True)

    pictures = trained.saliency(images, overlay=True).astype(int)

    assert pictures.shape == (6, 24, 24, 3)
    red = pictures[..., 0] - pictures[..., 2]
    assert red[where].mean() > 5 * red[~where].mean()
    assert trained.saliency(images[:0], overlay=True).shape == (0, 24, 24, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "squar"}, r"target: got 'squar'; expected one of 'noise', 'square'; did you mean 'square'\?"),
        ({"samples": -1}, "samples: got -1; expected a whole number from 0"),
        ({"samples": True}, "samples: got True"),
        ({"noise": 0}, "noise: got 0; expected a number above 0"),
        ({"seed": 1.5}, "seed: got 1.5"),
        ({"overlay": 1}, "overlay: got 1; expected True or False"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(trained, arguments, message):
    with pytest.raises(InputError, match=message):
        trained.saliency(noise(1, 0, with_shape=True)[0], **arguments)


def test_only_torch_modules_on_images_have_maps(tiny):
    rows = tiny()
    tree = tiny(model={"type": "sklearn", "estimator": "DecisionTreeClassifier"}, training={})

    with pytest.raises(NotTrainedError, match="saliency: this trainer has not learned anything yet"):
        rows.saliency([[1.0] * 4])
    rows.train()
    tree.train()

    with pytest.raises(InputError, match=r"the model takes rows of shape \(4,\); expected images"):
        rows.saliency([[1.0] * 4])
    with pytest.raises(TaskError, match="it is made of gradients, and only a torch module has them"):
        tree.saliency([[1.0] * 4])


def test_the_command_draws_a_picture_for_each_image(shape_bundle: Path, shapes: Path, tmp_path: Path) -> None:
    some = sorted((shapes / "circle").iterdir())[:2]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "000.jpg").write_bytes(some[0].read_bytes())
    command = ["saliency", shape_bundle, *some, tmp_path / "photos", "--output", tmp_path / "seen"]

    result = CliRunner().invoke(app, [*map(str, command), "--samples", "2", "--target", "circle"])
    wrong = CliRunner().invoke(app, [*map(str, command), "--target", "dog"])

    assert result.exit_code == 0, result.output
    written = sorted(each.name for each in (tmp_path / "seen").iterdir())
    assert written == ["000.2.saliency.png", "000.saliency.png", "002.saliency.png"]
    with PIL.Image.open(tmp_path / "seen" / written[0]) as picture:
        assert (picture.size, picture.mode) == ((224, 224), "RGB")
    assert wrong.exit_code == 2
    assert "target: got 'dog'; expected one of 'circle', 'square'" in wrong.stderr
