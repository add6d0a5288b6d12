"""The user's own classes: whether another process finds them, their source, and what is missing where they are not."""

from __future__ import annotations

import inspect
import linecache
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from gymtrain.bundle import Bundle
from gymtrain.bundle.format import MODEL_SKOPS, preprocessor_name
from gymtrain.data.fitted import refusal
from gymtrain.errors import BundleError, Fault, SaveError, SpecError
from gymtrain.registry import ForeignClass, UnknownTypeError, locate
from gymtrain.specs import Component, Experiment
from gymtrain.specs.components import Absent

Types = Mapping[str, Callable[..., Any]]

# With a dot, what skops calls a class that a fitted object holds.
_TRUSTED = re.compile(r"\w+(\.\w+)*[.:]\w+(\.\w+)*")
_OURS = ("gymtrain", "gymtrain_trackers")


def check_names(trust: object, types: object) -> None:
    """Look whether names that the caller gives for those of a file can be such names.

    Raises:
        SpecError: They cannot: nothing would ever be found under one of them.
    """
    names = trust if isinstance(trust, list | tuple | set | frozenset) else [trust]
    unfit = [name for name in names if not (isinstance(name, str) and _TRUSTED.fullmatch(name))]
    if unfit:
        raise SpecError.of_argument("trust", f"got {unfit[0]!r}; expected a list such as ['package.module:Class']")
    if not isinstance(types, Mapping) or not all(
        isinstance(name, str) and name and callable(target) for name, target in types.items()
    ):
        raise SpecError.of_argument("types", f"got {types!r}; expected classes by name, such as {{'my_net': MyNet}}")


def check_findable(experiment: Experiment) -> None:
    """Look whether another process would find what the spec names.

    Raises:
        SaveError: A class of the user's is defined where no other process looks.
    """
    faults = [_unfindable(place, component) for place, component in experiment.components()]
    found = [str(fault) for fault in faults if fault is not None]
    if found:
        raise SaveError("this trainer could not be loaded by another process:\n  " + "\n  ".join(found))


def _unfindable(place: str, component: Component) -> Fault | None:
    name, target = component.type, component.target
    if ":" not in name or isinstance(target, Absent | ForeignClass):
        return None
    remedy = (
        "put the class in a module that can be imported, or give it a name with @gymtrain.register and register it "
        "there too"
    )
    if name.startswith("__main__:"):
        what = "is defined in the script or notebook that runs, where no other process finds it"
        return Fault(place, f"{name!r} {what}; {remedy}")
    try:
        locate(name)
    except UnknownTypeError as error:
        return Fault(place, f"{error}; {remedy}")
    return None


def sources_of(experiment: Experiment) -> dict[str, str]:
    """Return the source of the modules, or of the cells of a notebook, that define what the spec names of the user's.

    What these import is not in it, but for base classes of the same package.

    Returns:
        Text by the name of the module.

    Raises:
        SaveError: The source of a class cannot be found.
    """
    files: dict[str, dict[str, str]] = {}
    unknown: list[str] = []
    for place, component in experiment.components():
        for target in _definitions(component.target):
            name = _file_of(target)
            text = "".join(linecache.getlines(name, vars(sys.modules.get(target.__module__, inspect))))
            if text:
                files.setdefault(target.__module__, {})[name] = text
            else:
                unknown.append(f"{place}: {target.__qualname__}")
    if unknown:
        raise SaveError(
            "include_source: the source is not there of\n  " + "\n  ".join(unknown) + "\nsave without include_source, "
            "or define them in a file"
        )
    return {module: "\n\n".join(texts.values()) for module, texts in files.items()}


def _definitions(target: Any) -> Iterator[Any]:
    """Yield the class or function of the user's behind a component, and the bases of a class in the same package."""
    while isinstance(target, partial):  # ours holds a function of the time, as a schedule
        target = target.args[0] if _package(target.func) in _OURS else target.func
    if isinstance(target, Absent | ForeignClass) or _package(target) in _OURS:
        return
    for each in target.__mro__ if isinstance(target, type) else [target]:
        if _package(each) == _package(target):
            yield each


def _package(target: Any) -> str:
    return str(target.__module__).partition(".")[0]


def _file_of(target: Any) -> str:
    # The functions of a class know the cell of a notebook that they are from; the class itself does not.
    functions = [each for each in vars(target).values() if inspect.isfunction(each)] if isinstance(target, type) else []
    for each in [target, *functions]:
        try:
            return inspect.getsourcefile(each) or inspect.getfile(each)
        except (TypeError, OSError):
            continue
    return ""


def with_all_that_is_missing(
    error: BundleError, bundle: Bundle, trust: Collection[str], types: Types, path: str | Path
) -> BundleError:
    """Return the error that lists every type that a prediction needs and this process does not have.

    Args:
        error: That the first of them is missing.
        bundle: That names them.
        trust: What may be imported.
        types: What the caller has supplied.
        path: Of the bundle.
    """
    faults: list[Fault] = []
    try:
        with Experiment.reading_a_file(trust, types):
            Experiment(**bundle.spec)
    except SpecError as spec_error:
        faults += [Fault(f"spec.json: {fault.path}", fault.message) for fault in spec_error.faults]
    fitted = {preprocessor_name(index, "skops"): each.skops for index, each in enumerate(bundle.preprocessors())}
    for member, data in {**fitted, MODEL_SKOPS: bundle.model_skops()}.items():
        refused = None if data is None else refusal(data, trust)
        if refused is not None:
            faults.append(Fault(member, refused))
    if len(faults) < 2:  # one is told of already
        return error
    listed = "\n  ".join(map(str, faults))
    return BundleError(f"{path}: not all that it needs is there:\n  {listed}", reason="unknown_type")
