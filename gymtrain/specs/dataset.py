"""The dataset spec: where the rows come from, how they are split, and what happens to them."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import pydantic

from gymtrain.specs.components import Component, check_component
from gymtrain.specs.section import Keyed, Section, fault, gathered
from gymtrain.specs.wording import shortened

DatasetComponent = Annotated[Component, pydantic.PlainValidator(partial(check_component, "dataset"))]
Seed = Annotated[int, pydantic.Field(ge=0, le=2**63 - 1)]


def check_components(kind: str, value: Any) -> list[Component]:
    """Check a list of components, gathering the faults of all of them."""
    if not isinstance(value, list):
        raise fault(f"got {shortened(value)}; expected a list of {kind}s")
    return gathered(value, partial(check_component, kind))


def _check_preprocessors(value: Any) -> list[Component] | Literal["auto"]:
    if value == "auto":
        return "auto"
    return check_components("preprocessor", value)


def _check_share(value: Any) -> float | int | None:
    """A part of the rows: a fraction (float) or a count (int)."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise fault(f"got {shortened(value)}; expected a fraction such as 0.2, or a number of rows such as 500")
    if isinstance(value, float) and not 0.0 <= value <= 1.0:
        raise fault(f"got {value!r}; expected a fraction from 0.0 to 1.0, or a whole number of rows")
    if value < 0:
        raise fault(f"got {value!r}; expected a number of rows of at least 0")
    return value


Share = Annotated[float | int | None, pydantic.PlainValidator(_check_share)]


class Samples(Section):
    """How the rows are split. A float is a fraction of all rows, an int a number of rows, null takes what is left."""

    place: ClassVar[str] = "dataset.samples"

    train: Share = None
    """Rows to learn from. By default 0.8 when `test` is not given, else what is left."""
    val: Share = 0.0
    """Rows to choose the best epoch by."""
    test: Share = None
    """Rows to evaluate on at the end. By default what is left."""
    stratify: bool = False
    """Keep the proportions of the classes in every part."""
    group_by: Annotated[str, pydantic.Field(min_length=1)] | None = None
    """A column whose rows with one value stay in one part (a patient, a machine); it is no feature then."""

    @pydantic.model_validator(mode="after")
    def _resolve(self) -> Samples:
        if self.train is None and self.test is None:
            # Frozen for users; this is still the making of it.
            object.__setattr__(self, "train", 0.8)
        shares = {"train": self.train, "val": self.val, "test": self.test}
        rest = [name for name, share in shares.items() if share is None]
        if len(rest) > 1:
            raise fault(f"{' and '.join(rest)} are null, and one part alone can take what is left; give the others")
        fractions = {name: share for name, share in shares.items() if isinstance(share, float) and share}
        total = sum(fractions.values())
        if total > 1.0 + 1e-9:
            raise fault(
                f"{' + '.join(fractions)} is {total:g}, more than the whole dataset; give fractions that sum to at "
                f"most 1.0"
            )
        if self.train == 0 or (self.train is None and total > 1.0 - 1e-9):
            raise fault("the train part is empty, and there is nothing to learn from; give it rows")
        if self.stratify and self.group_by is not None:
            raise fault("stratify and group_by cannot both hold: a group goes to one part as a whole; choose one")
        return self


class Dataset(Section):
    """The dataset spec.

    Example:
        >>> Dataset(dataset={"type": "digits"}, samples={"train": 0.8, "test": 0.2}).seed
        0
        >>> Dataset(dataset={"type": "digit"})
        Traceback (most recent call last):
        gymtrain.errors.SpecError: 1 problem in the spec:
          dataset.dataset.type: 'digit' is not a registered dataset; did you mean 'digits'?; known: ...
    """

    place: ClassVar[str] = "dataset"

    dataset: DatasetComponent
    """Where the rows come from: `{"type": "digits"}`, `{"type": "csv", "path": …, "target": …}`."""
    samples: Annotated[Samples, Keyed] = Samples()
    """How the rows are split into train, val and test."""
    preprocessors: Annotated[Any, pydantic.PlainValidator(_check_preprocessors)] = "auto"
    """Fitted on the train part, applied in this order to every row, also in `predict`. `"auto"` is `tabular` for
    frames and nothing for arrays."""
    data_augmentors: Annotated[Any, pydantic.PlainValidator(partial(check_components, "augmentor"))] = []
    """Random changes of the train part, drawn anew for each sample in each epoch."""
    shuffle: bool = True
    """Shuffle the rows before they are split, and the train part in every epoch. Off for series."""
    one_hot: bool = False
    """Give classes to the loss as vectors of zeros and a one."""
    seed: Seed = 0
    """Decides the split, the order of the samples and the augmentation."""
    chunk_size: Annotated[int, pydantic.Field(ge=1)] | None = None
    """Rows that the preprocessors transform at a time; null for all at once."""
    on_bad_sample: Literal["raise", "skip"] = "raise"
    """What an image that cannot be decoded does: end the training before it begins, or be left out with a warning."""
    max_image_pixels: Annotated[int, pydantic.Field(ge=1, le=1 << 40)] = 80_000_000
    """How many pixels an image may have, also in `predict`: a small file may decode to many gigabytes."""
    image_cache_gb: Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)] = 20.0
    """How many gigabytes decoded images may take on disk, all data sets together; what has no room is decoded anew in
    every epoch. They lie in `decoded` in the directory that the environment variable `GYMTRAIN_DATA` names."""
