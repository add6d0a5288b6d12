from __future__ import annotations

from pathlib import Path

import pytest
from drawn_images import folder_of_images

from gymtrain import Trainer


@pytest.fixture(scope="session")
def widths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of two runs of an experiment, `width 4` and `width 8`, in MLflow too, and a bundle of the second."""
    folder = tmp_path_factory.mktemp("widths")
    for width in (4, 8):
        trainer = Trainer(
            dataset={"dataset": {"type": "iris"}, "samples": {"train": 0.6, "val": 0.2, "test": 0.2}},
            model={"model": {"type": "mlp", "hidden": [width]}, "training": {"epochs": 3}},
            tracking={
                "root": str(folder),
                "experiment": "widths",
                "run_name": f"width {width}",
                "tags": {"team": "flowers"},
                "trackers": [{"type": "mlflow"}],
            },
        )
        trainer.train()
    trainer.save(folder / "width 8.zip")
    return folder


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 40 JPEGs, half of them in `circle/` and half in `square/`."""
    return folder_of_images(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="session")
def shape_bundle(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a small network that has seen `shapes`, of any size."""
    folder = tmp_path_factory.mktemp("shape bundle")
    trainer = Trainer(
        dataset={
            "dataset": {"type": "image_folder", "path": str(shapes)},
            "preprocessors": [{"type": "image_resize", "width": 32, "height": 32}, {"type": "divide"}],
            "image_cache_gb": 0,
        },
        model={"model": {"type": "cnn", "channels": [4]}, "training": {"epochs": 2, "batch_size": 8}},
        tracking={"root": str(folder / "runs")},
    )
    trainer.train()
    trainer.save(folder / "shapes.zip")
    return folder / "shapes.zip"
