from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import user_code
from hypothesis import settings
from image_archives import make_mirror

from gymtrain import Trainer
from gymtrain.registry import find

# Whoever looks for doctests would import them under a second name, and what they register would be of that one.
collect_ignore = [path.name for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("test_")]

# No test may fail because the machine is slow, and a failure has to come again: the examples are the same each time.
settings.register_profile("gymtrain", deadline=None, derandomize=True)
settings.load_profile("gymtrain")

# A shell that runs the suite in the background lets it ignore Ctrl-C, and so would all that a test interrupts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

Tiny = Callable[..., Trainer]


@pytest.fixture(scope="session", autouse=True)
def data_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where decoded images lie: not where the user's do."""
    home = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GYMTRAIN_DATA", str(home))
        yield home


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Keeps tiny trainings from waiting for threads that have nothing to do, above all where others compute, too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory of temporary files, in which none may be left."""
    place = tmp_path / "downloads"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield place
    assert list(place.iterdir()) == []


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    """Makes trainers on little data for little time, which write under `tmp_path`."""

    def make(
        dataset: Any = "iris",
        model: Any = "linear",
        training: dict[str, Any] | None = None,
        tracking: dict[str, Any] | None = None,
        **fields: Any,
    ) -> Trainer:
        return Trainer(
            dataset={"dataset": dataset, **fields},
            model={"model": model, "training": {"epochs": 1} if training is None else training},
            tracking={"root": str(tmp_path / "runs"), **(tracking or {})},
        )

    return make


@pytest.fixture
def kept(tiny: Tiny) -> Callable[..., tuple[Trainer, user_code.KeptHistory]]:
    """Makes trainers like `tiny`, each with the tracker that shows what was reported; no figures, which take time."""

    def make(*args: Any, tracking: dict[str, Any] | None = None, **kwargs: Any) -> tuple[Trainer, Any]:
        tracking = {"log_figures": False, **(tracking or {}), "trackers": [{"type": "kept_history"}]}
        trainer = tiny(*args, tracking=tracking, **kwargs)
        # Not the class that was imported above: a test that imports the module anew registers another.
        recorded: Any = find("tracker", "kept_history")
        recorded.last = None
        return trainer, lambda: recorded.last

    return make


@pytest.fixture(scope="session")
def iris_trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A trainer that has learned the irises, with labels that are text."""
    X, y = iris()
    trainer = Trainer(
        dataset={"dataset": {"type": "arrays", "X": X, "y": y}, "preprocessors": ["standard_scaler"]},
        model={"model": {"type": "mlp", "hidden": [8]}, "training": {"epochs": 3}},
        tracking={"root": str(tmp_path_factory.mktemp("iris"))},
    )
    trainer.train()
    return trainer


@pytest.fixture(scope="session")
def image_mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with small archives of all published data sets, as `GYMTRAIN_MIRROR` names one."""
    return make_mirror(tmp_path_factory.mktemp("mirror"))


@pytest.fixture
def mirrored(image_mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for downloaded data, which is empty; what is downloaded comes from `image_mirror`."""
    monkeypatch.setenv("GYMTRAIN_MIRROR", image_mirror.as_uri())
    monkeypatch.setenv("GYMTRAIN_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture(scope="session")
def flowers() -> tuple[np.ndarray, np.ndarray]:
    """The irises: features (150, 4), and their species as text."""
    return iris()


def iris() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_iris

    data = load_iris()
    return data.data, data.target_names[data.target]
