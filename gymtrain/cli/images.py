"""Paths of images in, predictions out."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO, Literal

import numpy as np

from gymtrain.cli.answers import Array, answer, as_csv, columns, header
from gymtrain.cli.terminal import printable
from gymtrain.data.image_forms import images_in
from gymtrain.data.images import BadImageError
from gymtrain.errors import InputError, TaskError
from gymtrain.trainer import Trainer

OnBadSample = Literal["skip", "raise"]

_AT_A_TIME = 256


def paths_of(inputs: Sequence[str]) -> Iterator[str]:
    """Yield paths of images: those given, those in directories that are given, and for `-` the lines of stdin.

    Raises:
        InputError: There is no image in a directory.
    """
    for each in inputs:
        if each == "-":
            yield from (os.fsdecode(line.rstrip(b"\r\n")) for line in sys.stdin.buffer if line.strip())
        elif os.path.isdir(each):
            yield from images_in(each)
        else:
            yield each


class ImagePredictions:
    """What a trained model says of images, some at a time.

    Args:
        trainer: The trained model.
        paths: Of the images.
        on_bad_sample: Whether an image that cannot be used ends it all, or is left out.
        tell: Told what is wrong with each that is left out.

    Attributes:
        left_out: How many images were left out so far.
    """

    def __init__(
        self, trainer: Trainer, paths: Iterable[str], on_bad_sample: OnBadSample, tell: Callable[[str], None]
    ) -> None:
        self._trainer, self._paths, self._on_bad_sample, self._tell = trainer, iter(paths), on_bad_sample, tell
        self._is_multilabel = trainer.task.name == "multilabel"
        self._has_probabilities = _has_probabilities(trainer)
        self.left_out = 0

    def write_csv(self, sink: BinaryIO, *, proba: bool) -> None:
        """Write them as CSV, UTF-8, the header first: path, prediction and, if asked for, all probabilities.

        Raises:
            TaskError: There are no probabilities.
            InputError: An image cannot be used, and none may be left out.
            OSError: They cannot be written.
        """
        if proba and not self._has_probabilities:
            self._trainer.predict_proba([])  # says why there are none
        sink.write(as_csv([["path", *header(self._trainer, proba)]]))
        for paths, labels, scores in self._blocks():
            sink.write(as_csv(zip(paths, *columns(labels, scores if proba else None), strict=True)))

    def write_json(self, sink: BinaryIO, top: int | None) -> None:
        """Write them as a list of objects: `path`, `prediction` and `probabilities`, the `top` best first.

        Raises:
            InputError: An image cannot be used, and none may be left out.
            OSError: They cannot be written.
        """
        before = "["
        for paths, labels, scores in self._blocks():
            for row, path in enumerate(paths):
                content = {"path": path, "prediction": self._prediction(labels[row])}
                if scores is not None:
                    content["probabilities"] = {str(name): value for name, value in self._ranked(scores[row], top)}
                sink.write(f"{before}\n  {json.dumps(content)}".encode())
                before = ","
        sink.write(b"\n]\n" if before == "," else b"[]\n")

    def lines(self, top: int | None) -> Iterator[str]:
        """Yield a line for each image: its path, and labels with probabilities, the `top` best first.

        Raises:
            InputError: An image cannot be used, and none may be left out.
        """
        for paths, labels, scores in self._blocks():
            names = [printable(path) for path in paths]
            width = max(map(len, names))
            for row, name in enumerate(names):
                yield "  ".join(
                    [f"{name:<{width}}", *self._said(labels[row], None if scores is None else scores[row], top)]
                )

    def _said(self, label: Any, scores: Array | None, top: int | None) -> Iterator[str]:
        if scores is None:
            numbers = [label] if np.ndim(label) == 0 else label
            yield from (printable(str(each)) for each in numbers)
            return
        if top is None:
            # Of several labels those that are there, and of classes the one.
            top = int(np.sum(label)) if self._is_multilabel else 1
        for name, value in self._ranked(scores, top):
            yield f"{printable(str(name))} {value:.4f}"

    def _prediction(self, label: Any) -> Any:
        if self._is_multilabel:
            return self._trainer.classes_[np.asarray(label, bool)].tolist()
        return _plain(label)

    def _ranked(self, scores: Array, top: int | None) -> list[tuple[Any, float]]:
        """Return labels with their probabilities, the most probable first."""
        order = np.argsort(-scores, kind="stable")[:top]
        return [(_plain(self._trainer.classes_[place]), _plain(scores[place])) for place in order]

    def _blocks(self) -> Iterator[tuple[list[str], Array, Array | None]]:
        while paths := list(islice(self._paths, _AT_A_TIME)):
            try:
                labels, scores = answer(self._trainer, paths, self._has_probabilities)
            except InputError:
                if self._on_bad_sample == "raise":
                    raise
                paths = [path for path in paths if self._is_good(path)]
                if not paths:
                    continue
                labels, scores = answer(self._trainer, paths, self._has_probabilities)
            yield paths, labels, scores

    def _is_good(self, path: str) -> bool:
        try:
            answer(self._trainer, [path], False)
        except (InputError, BadImageError) as error:
            self.left_out += 1
            self._tell(str(error))
            return False
        return True


def _has_probabilities(trainer: Trainer) -> bool:
    try:
        trainer.predict_proba([])
    except TaskError:
        return False
    return True


def _plain(value: Any) -> Any:
    """Return a value of numpy as Python has it; a float with the digits that tell it from others of its type."""
    if isinstance(value, np.ndarray):
        return [_plain(each) for each in value]
    return float(str(value)) if isinstance(value, np.floating) else getattr(value, "item", lambda: value)()
