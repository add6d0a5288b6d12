"""What is told to a tracker: a run, its metrics, the data that went in, the model that came out."""

from __future__ import annotations

import hashlib
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from .errors import ArgumentError

JSON: TypeAlias = bool | int | float | str | list["JSON"] | dict[str, "JSON"] | None
Status: TypeAlias = Literal["FINISHED", "FAILED", "KILLED"]

# In the year 5138.
_LAST_TIME = 1e11

# What a run is tagged with that did not end well; no longer true once it goes on.
ENDING_TAGS = ("gymtrain.ended", "gymtrain.error")


@dataclass(frozen=True)
class Run:
    """One execution that is tracked.

    Args:
        id: 32 hexadecimal digits, the same in every tracker.
        experiment: Name under which runs are compared.
        name: What people call this run; need not be unique.
        root: Absolute directory of all runs.
        directory: Absolute directory of this run alone.
        started: Unix time in seconds.
        default_experiment: Whether nobody chose the experiment, so that a tracker may prefer what surrounds it.

    Raises:
        ArgumentError: a path is relative (it would mean another place after a `chdir`), or a name is empty.

    Example:
        >>> run = Run.new("/tmp/runs", "digits", "mlp")
        >>> run.directory == Path("/tmp/runs/digits") / f"mlp-{run.id[:8]}"
        True
    """

    id: str
    experiment: str
    name: str
    root: Path
    directory: Path
    started: float
    default_experiment: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{32}", self.id):
            raise ArgumentError(f"run.id: got {self.id!r}; expected 32 hexadecimal digits (uuid.uuid4().hex)")
        for what in ("root", "directory"):
            path = getattr(self, what)
            if not path.is_absolute():
                raise ArgumentError(f"run.{what}: got {str(path)!r}; expected an absolute path")
        for what in ("experiment", "name"):
            if not getattr(self, what):
                raise ArgumentError(f"run.{what}: got an empty string; expected a name")

    @classmethod
    def new(cls, root: str | Path = "runs", experiment: str = "default", name: str = "run") -> Run:
        """Return a run that starts now, with an id and a directory of its own below `root`."""
        id = uuid.uuid4().hex
        base = Path(root).absolute()
        return cls(
            id, experiment, name, base, base / folder_of(experiment) / f"{path_part(name)}-{id[:8]}", time.time()
        )


class Metric(NamedTuple):
    """One point of a curve: `value` may be NaN or infinite, `timestamp` is unix time in seconds."""

    key: str
    value: float
    step: int
    timestamp: float


@dataclass(frozen=True)
class DatasetInput:
    """Data that a run used.

    Args:
        name: What people call the data.
        digest: At most 36 characters that differ when the data differ.
        context: What the data were used for.
        source: Where the data came from, JSON-able.
        schema: What a row looks like, JSON-able: `columns`, a list of dicts with `name` and `kind` (`"number"` or
            `"text"`), or else `shape` and `dtype` of one.
        profile: Counts and the like, JSON-able.

    Raises:
        ArgumentError: the digest is empty or too long, or the context is none of the three.

    Example:
        >>> DatasetInput("digits", "9584c58f", "training").context
        'training'
    """

    name: str
    digest: str
    context: Literal["training", "validation", "test"]
    source: Mapping[str, object] = field(default_factory=dict)
    schema: Mapping[str, object] = field(default_factory=dict)
    profile: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= len(self.digest) <= 36:
            raise ArgumentError(f"digest of {self.name!r}: got {self.digest!r}; expected 1 to 36 characters")
        if self.context not in ("training", "validation", "test"):
            raise ArgumentError(
                f"context of {self.name!r}: got {self.context!r}; expected 'training', 'validation' or 'test'"
            )


@dataclass(frozen=True)
class ModelFile:
    """A trained model in one file, with what a store needs to make it callable.

    Args:
        name: What people call the model.
        path: Absolute path of the file.
        sha256: Of the file, in hexadecimal.
        loader: The module that makes it callable, to be imported where the model is served: its
            `_load_pyfunc(path, config)` returns an object with a method `predict(rows, params)`.
        config: Given to the loader beside the path, JSON-able; without a config, it is given the path alone.
        inputs: What a row is: a list of columns or of one tensor, as `mlflow.types.Schema.to_dict` writes it.
        outputs: The same of what `predict` returns.
        params: What `predict` takes beside rows, as `mlflow.types.ParamSchema.to_dict` writes it.
        example: A few rows as a server takes them: `{"dataframe_split": {"columns": [...], "data": [...]}}`, or
            `{"inputs": [...]}` for an array.
        requirements: What a prediction needs, as `pip install` takes it.
        metadata: Whatever else is worth knowing of the model, JSON-able.

    Raises:
        ArgumentError: the path is relative, or the digest is none.

    Example:
        >>> model = ModelFile("digits", Path("/tmp/model.zip"), "0" * 64, loader="my_package.serving")
        >>> model.path.name, model.requirements
        ('model.zip', ())
    """

    name: str
    path: Path
    sha256: str
    loader: str
    config: Mapping[str, object] = field(default_factory=dict)
    inputs: Sequence[Mapping[str, object]] = ()
    outputs: Sequence[Mapping[str, object]] = ()
    params: Sequence[Mapping[str, object]] = ()
    example: Mapping[str, object] | None = None
    requirements: tuple[str, ...] = ()
    metadata: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.path.is_absolute():
            raise ArgumentError(f"path of the model {self.name!r}: got {str(self.path)!r}; expected an absolute one")
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ArgumentError(
                f"sha256 of the model {self.name!r}: got {self.sha256!r}; expected 64 hexadecimal digits"
            )


def is_time(value: object) -> bool:
    """Tell whether a value is a unix time that a calendar has.

    Example:
        >>> is_time(1763750000.0), is_time(1e300), is_time("soon")
        (True, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LAST_TIME


def path_part(name: str) -> str:
    """Return `name` as one part of a path that every file system takes.

    Example:
        >>> path_part("team/digits: best?"), path_part("..")
        ('team_digits_ best_', '_')
    """
    part = re.sub(r"[^\w .+=@-]", "_", name).strip(" ")[:120].rstrip(" ")
    return "_" if part.strip(".") == "" else part


def folder_of(experiment: str) -> str:
    """Return the name of an experiment's folder: its own name, or one with a digest of it where that is no `path_part`.

    Example:
        >>> folder_of("digits"), folder_of("a €"), folder_of("a £")
        ('digits', 'a _-5dae7500', 'a _-c35fe7c0')
    """
    part = path_part(experiment)
    digest = hashlib.sha256(experiment.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return part if part == experiment else f"{part}-{digest}"
