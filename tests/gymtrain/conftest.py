from __future__ import annotations

from pathlib import Path

import pytest

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
