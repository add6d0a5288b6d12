"""What is drawn once a model has learned: gathered here, drawn by `gymtrain.figures`."""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from gymtrain.bundle import atomic_write
from gymtrain.data.decoding import ImageArray
from gymtrain.data.frames import Frame
from gymtrain.data.schema import Features, row_blocks
from gymtrain.figures.classification import calibration, confusion_counts, confusion_matrix, precision_recall, roc
from gymtrain.figures.curves import learning_curves
from gymtrain.figures.importance import feature_importance
from gymtrain.figures.regression import predicted_against_actual, residuals
from gymtrain.figures.samples import MOST_SAMPLES, is_image, mistakes
from gymtrain.models.contract import Array
from gymtrain.models.seeding import seeded
from gymtrain.models.tasks import Binary, Multiclass, Multilabel, Regression
from gymtrain.models.torch_learner import TorchLearner
from gymtrain.tracking import Report
from gymtrain.trainer.fitting import Fitting
from gymtrain.trainer.importances import importances
from gymtrain.trainer.predictor import ROWS_AT_A_TIME
from gymtrain.trainer.preparation import Prepared

# What bounds the time: so many rows are drawn, and fewer where there are many classes.
MOST_ROWS = 100_000
MOST_SCORES = 2_000_000
# The matrix of more classes would be large, and show nothing.
MOST_CLASSES = 1000


@dataclass(frozen=True)
class Seen:
    """Rows of one part, and what a model says of them.

    Args:
        part: Which part they are of.
        positions: Where they are in it.
        total: How many rows it has.
        targets: What the task made of their labels.
        scores: What the task decodes.
    """

    part: str
    positions: Array
    total: int
    targets: Array
    scores: Array

    def __str__(self) -> str:
        count = len(self.positions)
        if count < self.total:
            return f"{count:,} of {self.total:,} rows of the {self.part} part, evenly spaced"
        return f"{count:,} rows of the {self.part} part"


class Pictures:
    """Draws a training that is over. What goes wrong is a warning: what was learned is not lost for a figure.

    Args:
        fitting: What has learned.
        data: The rows, as the preprocessors made them.
        report: Told of figures and files.
        epoch: The epoch whose weights are kept, which is the step of the figures.
    """

    def __init__(self, fitting: Fitting, data: Prepared, report: Report, epoch: int) -> None:
        self._fitting, self._data, self._report, self._epoch = fitting, data, report, epoch
        self._learner, self._task = fitting.learner, data.task

    def draw(self) -> None:
        """Draw all that there is to draw, and write down the numbers behind it."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from", UserWarning)  # a label has an odd letter
            self._draw()

    def _draw(self) -> None:
        fitting = self._fitting
        self._file("history.csv", lambda: as_csv(fitting.history))
        self._figure("learning_curves", lambda: learning_curves(fitting.history, fitting.best.epoch))
        self._figure("feature_importance", self._importance)
        with self._report.attempt("what would be drawn of predictions"):
            seen = self._predicted()
            if seen is not None:
                self._draw_predictions(seen)

    def _figure(self, name: str, make: Callable[[], Any | None]) -> None:
        with self._report.attempt(f"the figure {name!r}"):
            figure = make()
            if figure is not None:
                self._report.figure(figure, name, self._epoch)

    def _file(self, name: str, make: Callable[[], str]) -> None:
        with self._report.attempt(f"the file {name!r}"):
            path = self._report.run.directory / name
            with atomic_write(path) as file:
                file.write(make().encode())
            self._report.asset(path, name)

    def _importance(self) -> Any | None:
        data = self._data
        found = importances(self._learner, lambda: data.pipeline.feature_names(names_of(data.features)))
        return None if found is None else feature_importance(*found)

    def _predicted(self) -> Seen | None:
        """Return what the model says of the test part, or else of the val part; None where there is neither.

        Raises:
            ValueError: It says NaN or infinity.
        """
        data, learner = self._data, self._learner
        part = next((name for name in ("test", "val") if name in data.inputs), None)
        if part is None:
            return None
        total = len(data.inputs[part])
        count = min(total, MOST_ROWS, max(MOST_SCORES // self._task.output_size, 1))
        positions = np.arange(count) * total // count
        device = learner.device if isinstance(learner, TorchLearner) else None
        with seeded(self._fitting.training.seed, device):  # a model that draws leaves the caller's generators alone
            # A block at a time: the rows of images may fill most of the memory.
            blocks = row_blocks(positions, ROWS_AT_A_TIME)
            scores = np.concatenate([learner.scores(data.ready(part, block)) for block in blocks])
        bad = np.flatnonzero(~np.isfinite(scores).all(axis=1))
        if len(bad):
            raise ValueError(
                f"the model says NaN or infinity of {len(bad)} rows of the {part} part, the first is row "
                f"{data.rows[part][positions[bad[0]]]} of the dataset"
            )
        return Seen(part, positions, total, data.targets[part][positions], scores)

    def _draw_predictions(self, seen: Seen) -> None:
        task = self._task
        if isinstance(task, Binary | Multiclass):
            self._draw_classes(seen, task)
        elif isinstance(task, Multilabel):
            self._draw_curves(seen.targets, seen.scores, task.classes.tolist(), str(seen))
            truth, scores = seen.targets.ravel(), seen.scores.ravel()
            self._figure("calibration", lambda: calibration(truth, scores, "a label is right", str(seen)))
        elif isinstance(task, Regression):
            names = task.names or ([""] if task.output_size == 1 else range(task.output_size))
            predicted = seen.scores.reshape(seen.targets.shape)
            for name, make in (("predicted_actual", predicted_against_actual), ("residuals", residuals)):
                self._figure(name, partial(make, seen.targets, predicted, names, str(seen)))

    def _draw_classes(self, seen: Seen, task: Binary | Multiclass) -> None:
        names, rows = task.classes.tolist(), str(seen)
        truth, predicted = task.codes(seen.targets), seen.scores.argmax(axis=1)
        if len(names) <= MOST_CLASSES:
            counts = confusion_counts(truth, predicted, len(names))
            matrix = {"part": seen.part, "rows": len(truth), "classes": names, "counts": counts.tolist()}
            self._file("confusion_matrix.json", lambda: json.dumps(matrix, ensure_ascii=False))
            self._figure("confusion_matrix", lambda: confusion_matrix(counts, names, rows))
        if self._learner.has_probabilities:
            first = int(isinstance(task, Binary))  # of two classes the second is enough
            columns = np.arange(first, len(names))
            self._draw_curves(truth[:, None] == columns, seen.scores[:, first:], names[first:], rows)
            happened, probabilities = truth == predicted, seen.scores.max(axis=1)
            what = "the predicted class is right"
            if first:
                happened, probabilities, what = truth == 1, seen.scores[:, 1], f"it is {names[1]}"
            self._figure("calibration", lambda: calibration(happened, probabilities, what, rows))
        raw = self._data.raw
        if not isinstance(raw, Frame) and is_image(raw.shape[1:]):
            self._figure("mistakes", lambda: self._mistakes(seen, raw, names, truth, predicted))

    def _draw_curves(self, truth: Array, scores: Array, names: Sequence[object], rows: str) -> None:
        self._figure("roc", lambda: roc(truth, scores, names, rows))
        self._figure("precision_recall", lambda: precision_recall(truth, scores, names, rows))

    def _mistakes(
        self, seen: Seen, raw: ImageArray | Array, names: Sequence[object], truth: Array, predicted: Array
    ) -> Any | None:
        """Draw the rows that the model is surest of and wrong about."""
        wrong = np.flatnonzero(truth != predicted)
        if len(wrong) == 0:
            return None
        sure = seen.scores.max(axis=1)
        worst = wrong[np.argsort(-sure[wrong], kind="stable")][:MOST_SAMPLES]
        images = raw[self._data.rows[seen.part][seen.positions[worst]]]
        count = f"{len(wrong):,}" if len(worst) == len(wrong) else f"the {len(worst)} surest of {len(wrong):,}"
        return mistakes(
            images,
            [names[code] for code in truth[worst]],
            [names[code] for code in predicted[worst]],
            sure[worst].tolist() if self._learner.has_probabilities else None,
            f"{count} in {seen}",
        )


def names_of(features: Features) -> list[str]:
    """Return what the features are called: their columns, or where they are in a row."""
    if features.columns is not None:
        return list(features.columns)
    return [f"feature {', '.join(map(str, place))}" for place in np.ndindex(features.shape)]


def as_csv(history: Mapping[str, Sequence[float | None]]) -> str:
    """Return metrics by epoch as a table, in which a value that is not there is left empty.

    Example:
        >>> print(as_csv({"train/loss": [0.5, 0.25], "val/loss": [None, 0.5]}), end="")
        epoch,train/loss,val/loss
        1,0.5,
        2,0.25,0.5
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["epoch", *history])
    writer.writerows([epoch, *values] for epoch, values in enumerate(zip(*history.values(), strict=True), 1))
    return table.getvalue()
