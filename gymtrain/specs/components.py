"""Components: `{"type": name, **arguments}`, checked against the signature of the class behind the name."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, ClassVar, Literal

import pydantic

from gymtrain.errors import Fault, SpecError, did_you_mean
from gymtrain.registry import (
    FUNCTION_SCHEDULE,
    ForeignClass,
    UnknownTypeError,
    arguments_model,
    find,
    find_foreign,
    foreign_arguments,
    foreign_names,
    known_names,
    locate,
    type_name,
)
from gymtrain.specs.section import FaultsFound, fault, faults_of, join
from gymtrain.specs.values import misfits, plain, written
from gymtrain.specs.wording import shortened


@dataclass(frozen=True)
class Reading:
    """What a spec out of a file may name beside what is registered in this process.

    Args:
        trust: The `"package.module:Class"` names that may be imported.
        types: What stands behind names of the file, as the caller says.
        needed: The kinds that a prediction needs; of a type of another kind that is not there only the words are kept
            until somebody trains with it.
        postpones: Whether components of other kinds are looked up only when somebody asks for them.
    """

    trust: tuple[str, ...]
    types: Mapping[str, Callable[..., Any]]
    needed: frozenset[str]
    postpones: bool = True


# None while a user's own spec is checked.
reading: ContextVar[Reading | None] = ContextVar("reading", default=None)

# What a model is told about the data, so that the spec need not say it twice.
INJECTED = {"model": frozenset({"input_shape", "output_size"})}


@dataclass(frozen=True, eq=False)
class Component:
    """A checked component: the name it is written under, what stands behind it, and its arguments with defaults.

    `target` is a class or a function for a registered component and a `ForeignClass` for one of a library
    (an optimizer of torch, a metric of torchmetrics), which is imported when it is built. An argument may be a
    list of components.
    """

    words: ClassVar[str] = "a name or a dict with a 'type'"
    """What to expect, for messages."""

    type: str
    target: Callable[..., Any] | ForeignClass
    arguments: dict[str, Any]

    def __eq__(self, other: object) -> bool:
        # By what is written, because arrays have no truth value.
        return isinstance(other, Component) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def to_dict(self) -> dict[str, Any]:
        """Return the component as a spec on disk holds it; live data is replaced by its fingerprint."""
        arguments = _changed(self.arguments, Component.to_dict)
        # A default that cannot be written down is left to the class; one that was given was refused.
        fit = {key: value for key, value in arguments.items() if next(misfits(value), None) is None}
        return {"type": self.type, **{key: written(value) for key, value in fit.items()}}

    def build(self, **injected: Any) -> Any:
        """Make the object, with further arguments that the spec does not hold."""
        target = _constructor(self.target) if isinstance(self.target, ForeignClass) else self.target
        return target(**_changed(self.arguments, Component.build), **injected)

    def members(self, path: str = "") -> Iterator[tuple[str, Component]]:
        """Yield the component and those among its arguments, each with its path."""
        yield path, self
        for name, value in self.arguments.items():
            for position, member in enumerate(value if _is_several(value) else []):
                yield from member.members(join(path, name, position))


def _constructor(target: ForeignClass) -> Callable[..., Any]:
    if target.adapter is not None:
        return partial(locate(target.adapter), target.name)
    constructor: Callable[..., Any] = getattr(importlib.import_module(target.module), target.name)
    return constructor


def _is_several(value: Any) -> bool:
    """Tell whether an argument is a list of components; it may be a long list of rows too."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], Component)


def _changed(arguments: dict[str, Any], change: Callable[[Component], Any]) -> dict[str, Any]:
    """Return arguments in whose lists of components each is changed."""
    return {key: list(map(change, value)) if _is_several(value) else value for key, value in arguments.items()}


class Absent:
    """Stands for a type that this process does not have, in a spec that comes out of a file.

    A prediction needs the model and the preprocessors; the dataset that the model was trained on, and where the run was
    shown, are only of interest to who trains again.

    Args:
        reason: Why it is not there.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Refuse.

        Raises:
            UnknownTypeError: Always.
        """
        raise UnknownTypeError(self.reason)


class Postponed(Component):
    """A component out of a file that no prediction needs: what stands behind it is looked up when somebody asks for it.

    To look up an optimizer is to parse the source of torch, which takes longer than to open a bundle.

    Args:
        type: Its name in the file.
        check: Makes the component that this one is.
        source: What it may name.
    """

    def __init__(self, type: str, check: Callable[[], Component], source: Reading) -> None:
        vars(self).update(type=type, check=check, source=source)  # frozen for others

    @cached_property
    def found(self) -> Component:
        """The component itself, of an `Absent` type where it is not there or not what it is named as."""
        token = reading.set(replace(vars(self)["source"], postpones=False))
        try:
            component: Component = vars(self)["check"]()
            return component
        finally:
            reading.reset(token)

    def __getattr__(self, name: str) -> Any:
        """Return `target` or `arguments`, which are looked up for it."""
        if name not in {"target", "arguments"}:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.found, name)

    def to_dict(self) -> dict[str, Any]:
        """Return the component as a spec on disk holds it, its name as it is written now."""
        return self.found.to_dict()

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy the component itself: what the caller said of the names in the file need not be fit for copying."""
        return Component, (self.found.type, self.found.target, self.found.arguments)


def is_postponing() -> bool:
    """Tell whether a file is read whose components are looked up later, but for those that a prediction needs."""
    source = reading.get()
    return source is not None and source.postpones


def now_or_later(kind: str, value: Any, check: Callable[[Any], Component]) -> Component:
    """Check one component of a spec, or put it off until somebody asks for it, where it is out of a file.

    Args:
        kind: Its kind.
        value: As the spec has it.
        check: Checks it.

    Raises:
        FaultsFound: What `check` raises; or it is not in the form of a component.
    """
    source = reading.get()
    if source is None or not source.postpones or kind in source.needed:
        return check(value)
    name, _ = _split(kind, value)
    if name in source.trust:  # what is imported for it may register others
        return check(value)
    return Postponed(name, partial(check, value), source)


def check_component(kind: str, value: Any) -> Component:
    """Check one component of a spec.

    Raises:
        FaultsFound: With every fault, at paths relative to the component.
    """
    return value if isinstance(value, Component) else now_or_later(kind, value, partial(_checked_component, kind))


def _checked_component(kind: str, value: Any) -> Component:
    name, given = _split(kind, value)
    try:
        return _resolved_component(kind, name, given)
    except FaultsFound as error:
        source = reading.get()
        if source is None or kind in source.needed:
            raise
        # The libraries of this process may know other optimizers and other arguments than those that wrote the file.
        reasons = [found.message if found.path in {"", "type"} else str(found) for found in error.faults]
        return Component(name, Absent("; ".join(reasons)), given)


# Arguments that hold components again, each of which is checked as such.
_NESTED = {("schedule", "chain", "schedules")}


def _resolved_component(kind: str, name: str, given: dict[str, Any]) -> Component:
    if kind == "schedule":
        _refuse_scheduler(name)
    faults = list(misfits({key: value for key, value in given.items() if (kind, name, key) not in _NESTED}))
    if faults:
        raise FaultsFound(faults)
    target = _find(kind, name)
    if isinstance(target, ForeignClass):
        return _scheduler_component(target, given) if kind == "schedule" else _foreign_component(target, given)
    if kind == "schedule" and not isinstance(target, type):
        return _function_of_time(name, target, given)
    _check_contract(kind, target)
    if hasattr(target, "resolve_arguments"):
        # A component that passes its arguments on to something else knows best what that takes.
        return Component(name, target, _resolved(target, given))
    component = Component(name, target, _checked_arguments(kind, target, given))
    if kind in _MADE_ONCE:
        _try(component)
    return component


def _split(kind: str, value: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(value, str) or callable(value):
        value = {"type": value}
    if not isinstance(value, Mapping):
        raise fault(f"got {shortened(value)}; expected a name or a dict such as {{'type': {_EXAMPLES[kind]!r}}}")
    given = plain(value)
    if "type" not in given:
        raise fault(f"missing; name the {kind}, for example {{'type': {_EXAMPLES[kind]!r}}}", "type")
    named = given.pop("type")
    return (named if isinstance(named, str) else _name_of(kind, named)), given


def _name_of(kind: str, target: Any) -> str:
    """Return the name that a class or a function can be written under."""
    if not callable(target) or not hasattr(target, "__qualname__"):
        raise fault(f"got {shortened(target)}; expected a name such as {_EXAMPLES[kind]!r}, or a class", "type")
    name = type_name(kind, target)
    if "<" in name:
        raise fault(
            f"{target.__qualname__} is not found by its name in a later process; move it out of the function to the "
            f"top of a module, or give it a name with @gymtrain.register({kind!r}, 'a_name')",
            "type",
        )
    return name


def _find(kind: str, name: str) -> Callable[..., Any] | ForeignClass:
    source = reading.get()
    if source is not None and name in source.types:
        return source.types[name]
    if kind == "schedule" and ":" not in name and name not in known_names(kind):
        found = find_foreign(kind, name)
        if found is None:
            known = [*known_names(kind), *foreign_names(kind)]
            raise fault(
                f"{name!r} is not a registered {kind}{did_you_mean(name, known)}; known: {', '.join(known)}; or give "
                f"'package.module:function'",
                "type",
            )
        return found
    if kind in {"optimizer", "metric"} or (kind == "loss" and ":" not in name):
        found = find_foreign(kind, name)
        if found is not None:
            return found
        if kind != "loss" or name not in known_names("loss"):
            known = foreign_names(kind)
            hint = did_you_mean(name, known) or f"; known: {', '.join(known)}"
            raise fault(f"{name!r} is not a known {kind}{hint}", "type")
    try:
        return find(kind, name, trusted=None if source is None else source.trust)
    except UnknownTypeError as error:
        raise fault(str(error), "type") from error


# Schedulers of torch that take what a spec cannot hold, and what does the same.
_FUNCTION = "use a function of the time that returns the value itself, {'type': 'package.module:function'}"
_INSTEAD = {
    "lambdalr": _FUNCTION,
    "multiplicativelr": _FUNCTION,
    "reducelronplateau": "use 'plateau'",
    "sequentiallr": "use 'chain'",
    "chainedscheduler": "use 'chain'",
}


def _refuse_scheduler(name: str) -> None:
    instead = _INSTEAD.get(name.replace("_", "").lower())
    if instead is not None and name not in known_names("schedule"):
        raise fault(f"got {name!r}; {instead}", "type")


def _function_of_time(name: str, function: Callable[..., Any], given: dict[str, Any]) -> Component:
    arguments = _checked_arguments("schedule", function, given)
    return Component(name, partial(locate(FUNCTION_SCHEDULE), function), arguments)


def with_unit(target: ForeignClass) -> ForeignClass:
    """Return a scheduler of torch with our `by` beside its own arguments, and leaving the momentum alone."""
    own = {"cycle_momentum": (False,)} if "cycle_momentum" in target.arguments else {}
    return replace(target, arguments={**target.arguments, **own, "by": ("epoch",)})


def _scheduler_component(target: ForeignClass, given: dict[str, Any]) -> Component:
    target, more = with_unit(target), {}
    if given.get("by", "epoch") not in ("epoch", "step"):
        more["by"] = f"got {shortened(given['by'])}; expected 'epoch' or 'step'"
    if given.get("cycle_momentum") is True and "cycle_momentum" in target.arguments:
        more["cycle_momentum"] = "got True; a schedule changes one value, give the momentum a schedule of its own"
    return _foreign_component(target, given, more)


def _foreign_component(target: ForeignClass, given: dict[str, Any], more: Mapping[str, str] = {}) -> Component:
    resolved, faults = foreign_arguments(target, given)
    faults = {**faults, **more}
    if faults:
        raise FaultsFound([Fault(key, message) for key, message in faults.items()])
    return Component(target.name, target, resolved)


# What the class of a component has to have; a model or a loss may be a function.
_METHODS = {
    "dataset": "load",
    "preprocessor": "transform",
    "augmentor": "augment",
    "tracker": "log_metrics",
    "schedule": "value",
}


def _check_contract(kind: str, target: Callable[..., Any]) -> None:
    """Refuse a class that cannot be what it is named as; what a function returns is seen when it is called."""
    method = _METHODS.get(kind)
    if method is None:
        return
    if not isinstance(target, type):
        raise fault(f"{getattr(target, '__qualname__', target)} is a function; a {kind} is a class", "type")
    if not hasattr(target, method):
        raise fault(f"{target.__qualname__} has no method {method}(); a {kind} needs it", "type")


def _resolved(target: Any, given: dict[str, Any]) -> dict[str, Any]:
    try:
        resolved: dict[str, Any] = target.resolve_arguments(given)
    except SpecError as error:
        if reading.get() is not None and all(each.message.startswith("unknown key") for each in error.faults):
            return given  # another version of the library wrote the file, and what was fitted does not ask it again
        raise FaultsFound(error.faults) from error
    return resolved


def _checked_arguments(kind: str, target: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    try:
        model = _arguments_model(kind, target, given)
    except FaultsFound:
        raise
    except (ValueError, TypeError) as error:
        raise fault(
            f"the arguments of {target!r} cannot be told: {error}; name a class written in Python", "type"
        ) from error
    try:
        # What belongs to another argument, for those that are checked against it.
        checked = model.model_validate(given, context=given)
    except pydantic.ValidationError as error:
        raise FaultsFound(faults_of(error, model, "")) from None
    arguments = {field.alias or name: getattr(checked, name) for name, field in model.model_fields.items()}
    return arguments | (checked.model_extra or {})


def _arguments_model(kind: str, target: Callable[..., Any], given: dict[str, Any]) -> type[pydantic.BaseModel]:
    if kind != "schedule" or isinstance(target, type):
        return arguments_model(target, _injected(kind, target) - set(given))
    parameters = inspect.signature(target).parameters
    time = next(iter(parameters.values()), None)
    if time is None or time.kind in (time.KEYWORD_ONLY, time.VAR_KEYWORD):
        name = getattr(target, "__qualname__", target)
        raise fault(f"{name} does not take the time; expected a function such as value(epoch, **arguments)", "type")
    model = arguments_model(target, frozenset({time.name}))
    if "by" in parameters:
        return model
    unit: Any = (Literal["epoch", "step"], pydantic.Field("epoch", alias="by"))
    return pydantic.create_model(model.__name__, __base__=model, argument_by=unit)


def _injected(kind: str, target: Callable[..., Any]) -> frozenset[str]:
    """Return the arguments that are not the spec's to give: to a function that is a loss, what it compares."""
    if kind == "loss" and not isinstance(target, type):
        outputs_and_targets = list(inspect.signature(target).parameters)[:2]
        return frozenset({*outputs_and_targets, "weights"})
    return INJECTED.get(kind, frozenset())


# Their constructors only keep what they are given, and refuse what no annotation can: two bounds in the wrong order.
_MADE_ONCE = {"preprocessor", "augmentor", "tracker", "schedule"}


def _try(component: Component) -> None:
    try:
        component.build()
    except (
        ValueError,
        UnknownTypeError,
    ) as error:  # of a type that is not there, in a list of components out of a file
        raise fault(str(error)) from error


_EXAMPLES = {
    "dataset": "digits",
    "model": "mlp",
    "preprocessor": "standard_scaler",
    "augmentor": "flip",
    "tracker": "mlflow",
    "schedule": "cosine",
    "optimizer": "Adam",
    "loss": "CrossEntropyLoss",
    "metric": "accuracy",
}
