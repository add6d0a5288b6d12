# ruff: noqa: D102  (what the methods do is said in Tracker)
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .run import ENDING_TAGS, DatasetInput, Metric, ModelFile, Run, Status
from .tracker import Tracker

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class HistoryTracker(Tracker):
    """Keeps everything in memory, for notebooks and tests.

    Attributes:
        run: The run, or None before `start`.
        params: The last value by key.
        tags: The last value by key.
        metrics: Lists of `(step, value)` by key, in the order in which they came.
        assets: The path by name.
        images: The uint8 array by `(name, step)`.
        histograms: The counts, int64 of shape `(bins,)`, and the edges, float64 of shape `(bins + 1,)`, by
            `(name, step)`.
        graph: The path of the file that shows the model.
        inputs: The data of the run.
        models: The models by name.
        status: None before `end`.

    Example:
        >>> history = HistoryTracker()
        >>> history.log_metric("train/loss", 0.5, step=1)
        >>> history.metrics
        {'train/loss': [(1, 0.5)]}
    """

    name = "history"
    is_lasting = False

    def __init__(self) -> None:
        self.run: Run | None = None
        self.params: dict[str, Any] = {}
        self.tags: dict[str, Any] = {}
        self.metrics: dict[str, list[tuple[int, float]]] = {}
        self.assets: dict[str, Path] = {}
        self.images: dict[tuple[str, int], NDArray[np.uint8]] = {}
        self.histograms: dict[tuple[str, int], tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
        self.graph: Path | None = None
        self.inputs: list[DatasetInput] = []
        self.models: dict[str, ModelFile] = {}
        self.status: Status | None = None

    def start(self, run: Run) -> None:
        self.run = run

    def reopen(self) -> None:
        self.status = None
        self.tags = {key: value for key, value in self.tags.items() if key not in ENDING_TAGS}

    def log_params(self, params: Mapping[str, Any]) -> None:
        self.params.update(params)

    def log_tags(self, tags: Mapping[str, Any]) -> None:
        self.tags.update(tags)

    def log_metrics(self, metrics: Sequence[Metric]) -> None:
        for metric in metrics:
            self.metrics.setdefault(metric.key, []).append((metric.step, metric.value))

    def log_asset(self, path: Path, name: str) -> None:
        self.assets[name] = path

    def log_image(self, image: NDArray[np.uint8], name: str, step: int) -> None:
        self.images[name, step] = image

    def log_histogram(self, name: str, counts: NDArray[np.int64], edges: NDArray[np.float64], step: int) -> None:
        self.histograms[name, step] = counts, edges

    def log_graph(self, path: Path) -> None:
        self.graph = path

    def log_inputs(self, inputs: Sequence[DatasetInput]) -> None:
        self.inputs.extend(inputs)

    def log_model(self, model: ModelFile) -> None:
        self.models[model.name] = model

    def end(self, status: Status) -> None:
        self.status = status
