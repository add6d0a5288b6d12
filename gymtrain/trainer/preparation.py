"""From a dataset spec to numbers: loaded, split, and through the preprocessors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from gymtrain.data.augmentors import Augmentation
from gymtrain.data.decoding import ImageArray
from gymtrain.data.frames import Frame, column_of
from gymtrain.data.images import Images
from gymtrain.data.preprocessors import Pipeline
from gymtrain.data.rows import taken
from gymtrain.data.schema import Features, as_array, as_features, rows_that_are_not_finite
from gymtrain.data.sources import Data
from gymtrain.data.splits import PARTS, Rows, split
from gymtrain.data.tabular import Tabular
from gymtrain.errors import DataError, some
from gymtrain.models.seeding import seeded
from gymtrain.models.targets import as_targets, infer_task, task_of
from gymtrain.models.tasks import Task
from gymtrain.specs import Dataset, Training
from gymtrain.trainer.image_loading import decode, sample_of

Array = npt.NDArray[Any]
T = TypeVar("T")


@dataclass
class Prepared:
    """The rows of an experiment, a little further after each stage.

    Args:
        features: What a row looks like.
        task: What is predicted.
        raw: All rows, as they came; of images of any size what the picture preprocessors made of them.
        rows: Which rows each part has.
        targets: What the loss compares with, by part.
        pipeline: The preprocessors.
        inputs: What the preprocessors made of each part, float32 of shape (rows, …); or pixels, uint8, to which
            `pipeline.transform_batch` is still to be done.
        images: The images that `raw` is from, where they are of any size.
        bad_samples: What is wrong with each image that was left out.
        weights: How much each row counts, float32 of shape (rows,) by part; empty where the dataset does not say.
        in_order: Whether every pass goes through the train part as it stands here, instead of as the spec says.
    """

    features: Features
    task: Task
    raw: Frame | ImageArray | Array
    rows: dict[str, Rows]
    targets: dict[str, Array]
    pipeline: Pipeline = field(default_factory=lambda: Pipeline([]))
    inputs: dict[str, ImageArray | Array] = field(default_factory=dict)
    weights: dict[str, Array] = field(default_factory=dict)
    images: Images | None = None
    bad_samples: list[str] = field(default_factory=list)
    in_order: bool = False
    _digests: dict[str, str] = field(default_factory=dict, init=False)

    def part(self, name: str) -> Frame | ImageArray | Array:
        """Return the raw rows of one part."""
        return taken(self.raw, self.rows[name])

    def examples(self, name: str, count: int) -> Frame | Images | Array:
        """Return the first rows of a part as a user has them; of images, what may go into a bundle."""
        rows = self.rows[name][:count]
        if self.images is not None:
            return sample_of(self.images.take(rows), self.pipeline.picture_steps)
        assert not isinstance(self.raw, ImageArray)
        return taken(self.raw, rows)

    def ready(self, name: str, positions: Rows | slice = slice(None)) -> Array:
        """Return rows of one part as the model gets them, float32 of shape (rows, …)."""
        inputs = taken(self.inputs[name], positions)
        if not self.stays_pixels:
            return np.asarray(inputs)
        images = torch.from_numpy(np.array(inputs)).float()
        finished: Array = self.pipeline.transform_batch(images).numpy()
        return finished

    @property
    def stays_pixels(self) -> bool:
        """Whether the rows are pixels, and nothing but elementwise steps come after the picture preprocessors."""
        has_pixels = not isinstance(self.raw, Frame) and self.raw.dtype == np.uint8
        return has_pixels and self.pipeline.late <= len(self.pipeline.picture_steps)

    @property
    def pixel_range(self) -> tuple[float, float]:
        """The least and the greatest value of a pixel: of bytes what they can hold, else what the train part has."""
        if self.stays_pixels:
            return 0.0, 255.0
        numbers = np.asarray(self.inputs["train"])
        return float(numbers.min()), float(numbers.max())

    @property
    def finish(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """What is still to be done to a batch of pixels, float32; None where nothing is."""
        return self.pipeline.transform_batch if self.stays_pixels else None

    def fill(self, name: str, source: str, positions: Rows) -> None:
        """Make a part of some rows of a part, itself or another, by their positions in it; of none, it is left out."""
        tables: list[dict[str, Any]] = [self.rows, self.targets, self.inputs, self.weights]
        for table in tables:
            if source in table:
                table[name] = taken(table[source], positions)
        if len(positions) == 0:
            self.inputs.pop(name, None)
        self._digests.pop(name, None)

    def codes(self, name: str) -> Array:
        """Return the targets of one part as preprocessors and models of other libraries take them."""
        return self.task.codes(self.targets[name])

    def digest(self, name: str) -> str:
        """Return the SHA-256 over all bytes of one part: rows, targets and weights; worked out once."""
        if name not in self._digests:
            self._digests[name] = self._digest(name)
        return self._digests[name]

    def _digest(self, name: str) -> str:
        digest = hashlib.sha256()
        if self.images is not None:  # the files, and not their pixels, which another Pillow may see otherwise
            for row in self.rows[name].tolist():
                digest.update(self.images.digest(row))
            columns: dict[str, Array] = {}
        else:
            part = self.part(name)
            columns = part.columns if isinstance(part, Frame) else {"X": np.asarray(part)}
        weights = [("sample_weight", self.weights[name])] if name in self.weights else []
        # Not as a dict: a feature may be named like one of the others.
        for key, column in [*columns.items(), ("y", self.targets[name]), *weights]:
            digest.update(f"{key}:{column.dtype}:{column.shape};".encode())
            digest.update(
                repr(column.tolist()).encode() if column.dtype == object else np.ascontiguousarray(column).data
            )
        return digest.hexdigest()

    def profile(self, name: str) -> dict[str, Any]:
        """Return how many rows a part has, and how many of each class."""
        profile: dict[str, Any] = {"rows": len(self.rows[name])}
        if self.task.name in {"binary", "multiclass"}:
            counts = np.bincount(self.codes(name), minlength=len(self.task.classes))
            profile["classes"] = {
                str(label): int(count) for label, count in zip(self.task.classes, counts, strict=True)
            }
        return profile


def load(source: Any, spec: Dataset, training: Training) -> Prepared:
    """Load the rows, find out what they are, and split them.

    Raises:
        DataError: The dataset gave something that cannot be trained on.
    """
    data = _read(source, spec.dataset.type)
    weight_column = _weight_column(data, spec)
    targets_of = [name for name in data.left_out if name != weight_column]
    X = _named("X", as_features, data.X)
    y = _named(f"target {some(targets_of)}" if targets_of else "y", as_targets, data.y)
    if len(X) != len(y):
        raise DataError(f"dataset.dataset: X has {len(X)} rows and y has {len(y)}; every row needs one target")
    pictures = None
    if isinstance(X, Images):
        pictures = decode(X, build_pipeline(spec, Features.of(X)).picture_steps, spec)
        data, y = _without(data, pictures.good), y[pictures.good]
    X, groups = _groups(pictures.pixels if pictures else X, data, spec.samples.group_by)
    name = data.task or infer_task(y)
    if spec.samples.stratify and name not in {"binary", "multiclass"}:
        raise DataError(f"dataset.samples.stratify: a {name} task has no classes to keep in proportion; leave it out")
    rows = split(
        spec.samples,
        len(X),
        seed=spec.seed,
        shuffle=spec.shuffle,
        validation_split=training.validation_split,
        classes=y if spec.samples.stratify else None,
        groups=groups,
    )
    task = task_of(y, data.task, rows["train"], data.target_names, one_hot=spec.one_hot, loss=training.loss)
    targets = {part: _encoded(task, part, y[rows[part]]) for part in PARTS}
    left_out = [*data.left_out, *([spec.samples.group_by] if spec.samples.group_by is not None else [])]
    weights = {} if data.sample_weight is None else _weights(data.sample_weight, rows, len(X), weight_column)
    if pictures is None:
        return Prepared(Features.of(X, left_out), task, X, rows, targets, weights=weights)
    features = Features.of(pictures.images)
    return Prepared(features, task, X, rows, targets, weights=weights, images=pictures.images, bad_samples=pictures.bad)


def _without(data: Data, good: Rows) -> Data:
    """Leave out the rows whose images cannot be decoded; the images themselves are not looked at again."""

    def kept(values: Any) -> Any:
        return None if values is None else np.asarray(values)[good]

    return replace(data, groups=kept(data.groups), sample_weight=kept(data.sample_weight))


def build_pipeline(spec: Dataset, features: Features) -> Pipeline:
    """Make the preprocessors of the spec, not fitted yet; `"auto"` is `tabular` for rows with named columns."""
    if spec.preprocessors == "auto":
        return Pipeline([("tabular", Tabular())] if features.columns is not None else [])
    return Pipeline([(component.type, component.build()) for component in spec.preprocessors])


def fit_preprocessors(data: Prepared, spec: Dataset) -> None:
    """Fit the preprocessors on the train part alone.

    Raises:
        DataError: A value is missing or infinite where nothing fills it, or a preprocessor cannot take the rows.
    """
    data.pipeline = build_pipeline(spec, data.features)
    data.features.check_values(data.raw, missing=data.pipeline.handles_missing, error=DataError)
    with seeded(spec.seed):
        data.pipeline.fit(data.part("train"), data.codes("train"))


def transform(data: Prepared, spec: Dataset) -> None:
    """Turn the rows of every part into float32 for the model, or into pixels that are finished batch by batch.

    Raises:
        DataError: A preprocessor made NaN or infinity of a value.
    """
    if data.stays_pixels:
        for part in PARTS:
            if len(data.rows[part]):
                rows = data.part(part)
                if isinstance(rows, ImageArray):
                    data.inputs[part] = rows  # nothing is copied
                else:
                    data.inputs[part] = data.pipeline.transform(rows, spec.chunk_size, upto=data.pipeline.late)
        return
    shape: tuple[int, ...] | None = None
    for part in PARTS:
        if len(data.rows[part]):
            values = data.pipeline.transform(data.part(part), spec.chunk_size)
            with np.errstate(over="ignore"):  # what does not fit is told below
                inputs = np.ascontiguousarray(values, dtype=np.float32)
            bad = rows_that_are_not_finite(inputs)
            if len(bad):
                raise DataError(
                    f"after the preprocessors {len(bad)} rows of the {part} part hold NaN or infinity, the first is "
                    f"row {data.rows[part][bad[0]]} of the dataset; fill missing values and scale large ones"
                )
            shape = shape or inputs.shape[1:]
            if inputs.shape[1:] != shape:
                raise DataError(
                    f"dataset.preprocessors: they made rows of shape {shape} of the train part and {inputs.shape[1:]} "
                    f"of the {part} part; what a row becomes may not depend on the others"
                )
            data.inputs[part] = inputs


def build_augmentation(data: Prepared, spec: Dataset) -> Augmentation | None:
    """Make the augmentors of the spec, and see whether they take these rows; None without any.

    Raises:
        DataError: An augmentor cannot take rows of this shape.
    """
    if not spec.data_augmentors:
        return None
    augmentors = [each.build() for each in spec.data_augmentors]
    augmentation = Augmentation(augmentors, spec.seed, pixel_range=data.pixel_range)
    augmentation.check(data.inputs["train"].shape[1:])
    return augmentation


def _read(source: Any, name: str) -> Data:
    loaded = source.load()
    if isinstance(loaded, tuple) and len(loaded) == 2:
        loaded = Data(*loaded)
    if not isinstance(loaded, Data):
        raise DataError(
            f"dataset.dataset ({name}): load() returned a {type(loaded).__name__}; expected (X, y) or "
            f"gymtrain.data.sources.Data"
        )
    return loaded


def _named(what: str, read: Callable[[Any], T], value: Any) -> T:
    try:
        return read(value)
    except DataError as error:
        raise DataError(f"dataset.dataset, {what}: {error}") from error


def _groups(X: Frame | Images | ImageArray | Array, data: Data, group_by: str | None) -> tuple[Any, Array | None]:
    if group_by is None:
        return X, None
    if isinstance(X, Frame) and group_by in X.columns:
        groups = _group_names(X.columns[group_by], f"dataset.samples.group_by: {group_by!r}")
        return X.select([name for name in X.names if name != group_by]), groups
    if data.groups is not None and group_by == "groups":
        groups = _group_names(np.array(data.groups, dtype=object), "dataset.dataset.groups")
        if groups.shape != (len(X),):
            raise DataError(
                f"dataset.dataset.groups: got the shape {groups.shape}; expected ({len(X)},), one for each row"
            )
        return X, groups
    known = X.names if isinstance(X, Frame) else ["groups"] if data.groups is not None else []
    raise DataError(
        f"dataset.samples.group_by: there is no column {group_by!r}; "
        + (f"the columns are {', '.join(map(repr, known))}" if known else "give the dataset the argument 'groups'")
    )


def _group_names(groups: Array, place: str) -> Array:
    """Return groups as text, in which all kinds of names can be told apart.

    Raises:
        DataError: A row has no group.
    """
    missing = [row for row, item in enumerate(groups.tolist()) if item is None or item != item]
    if missing:
        raise DataError(
            f"{place}: {len(missing)} rows have no group, the first is row {missing[0]}; name it, or drop them"
        )
    return np.array([repr(item) for item in groups.tolist()])


def _weight_column(data: Data, spec: Dataset) -> str | None:
    """Return the name of the column that the weights of the rows are from, where they are from one."""
    name = spec.dataset.arguments.get("sample_weight")
    return name if isinstance(name, str) and name in data.left_out else None


def _weights(given: Any, rows: dict[str, Rows], size: int, column: str | None) -> dict[str, Array]:
    """Read weights of rows: float32 of shape (rows,) by part.

    Raises:
        DataError: They are no numbers of at least 0, there is not one for each row, or the train part has none above 0.
    """
    place = "dataset.dataset.sample_weight" + ("" if column is None else f", column {column!r}")
    values = _one_for_each_row(given, size, place)
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is told below
        weights = values.astype(np.float32)
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(bad):
        raise DataError(
            f"{place}: {len(bad)} rows have a weight that cannot be used, the first is row {bad[0]} with "
            f"{values[bad[0]]:g}; expected numbers from 0 to 3.4e38; replace them, or drop the rows"
        )
    if not weights[rows["train"]].any():
        raise DataError(
            f"{place}: got 0 for all {len(rows['train'])} rows of the train part; expected a number above 0 for at "
            f"least one, or there is nothing to learn from"
        )
    return {part: weights[rows[part]] for part in PARTS}


def _one_for_each_row(given: Any, size: int, place: str) -> Array:
    try:
        values = as_array(given, DataError)
        if values.shape != (size,):
            raise DataError(f"got the shape {values.shape}; expected ({size},), one for each row")
        return values if values.dtype.kind in "biuf" else _numbers(given)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error


def _numbers(given: Any) -> Array:
    # As objects, because numpy makes text of numbers that stand beside text.
    items = np.array(given, dtype=object)
    text = next((item for item in items if isinstance(item, str)), None)
    if text is not None:
        raise DataError(f"got the text {text!r}; expected a number for each row")
    return column_of("sample_weight", items)


def _encoded(task: Task, part: str, y: Array) -> Array:
    try:
        return task.encode(y)
    except DataError as error:
        hint = "" if part == "train" else "; give the train part more rows, or set samples.stratify"
        raise DataError(f"the {part} part: {error}{hint}") from error
