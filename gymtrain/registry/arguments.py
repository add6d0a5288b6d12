"""Which arguments a component takes: read from its signature, which is the only place where they are written."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Annotated, Any

import pydantic

from gymtrain.errors import did_you_mean
from gymtrain.registry.libraries import ForeignClass, NoSource


def arguments_model(target: Callable[..., Any], injected: frozenset[str] = frozenset()) -> type[pydantic.BaseModel]:
    """Build a pydantic model of the keyword arguments that a class or function takes.

    Args:
        target: The class or function. Annotations are checked strictly (the text `"64"` is no integer, `True` is no
            number); constraints are written with `typing.Annotated` and `pydantic.Field`. Without an annotation, or
            with one that only a type checker understands, any value goes.
        injected: Names of arguments that are not the user's to give.

    Raises:
        ValueError: The signature cannot be read, as that of some classes written in C.
        TypeError: It is nothing that can be called.

    Example:
        >>> def mlp(*, hidden: list[int] = [64], output_size: int = 1): ...
        >>> arguments_model(mlp, frozenset({"output_size"}))(hidden=[8]).model_dump(by_alias=True)
        {'hidden': [8]}
    """
    is_kept = isinstance(target, type | types.FunctionType)  # what else is called may change, and have no hash
    return (_kept_model if is_kept else _model)(target, injected)


def _model(target: Callable[..., Any], injected: frozenset[str]) -> type[pydantic.BaseModel]:
    signature = inspect.signature(target)
    hints = _type_hints(target)
    fields: dict[str, Any] = {}
    open_ended = False
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            open_ended = True
        elif parameter.kind is not parameter.VAR_POSITIONAL and name not in injected:
            default = ... if parameter.default is parameter.empty else parameter.default
            # Behind an alias, because pydantic keeps names such as `copy` for itself.
            fields[f"argument_{name}"] = (hints.get(name, Any), pydantic.Field(default, alias=name))
    config = pydantic.ConfigDict(extra="allow" if open_ended else "forbid", **_CONFIG)
    create = partial(pydantic.create_model, getattr(target, "__name__", type(target).__name__), __config__=config)
    try:
        return create(**fields)
    except Exception:
        # An annotation may be any expression, also one that is no type at all.
        return create(**{key: (hint if _is_type(hint) else Any, field) for key, (hint, field) in fields.items()})


# Making one takes a quarter of the time in which a small bundle is loaded.
_kept_model = lru_cache(maxsize=256)(_model)

_CONFIG = pydantic.ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)


def _type_hints(target: Callable[..., Any]) -> dict[str, Any]:
    function = inspect.unwrap(target.__init__ if inspect.isclass(target) else target)
    annotations = {**getattr(function, "__annotations__", {})}
    annotations.pop("return", None)
    names = getattr(function, "__globals__", {})
    try:
        return _resolved(annotations, names)
    except Exception:
        # It may be any expression, a name that only a type checker imports: then any value goes, and no other argument
        # is without its checks for it.
        return {name: _type_hint(annotation, names) for name, annotation in annotations.items()}


def _type_hint(annotation: Any, names: dict[str, Any]) -> Any:
    try:
        return _resolved({"argument": annotation}, names)["argument"]
    except Exception:
        return Any


def _resolved(annotations: dict[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    holder = types.SimpleNamespace(__annotations__=annotations)
    return {name: _strict(hint) for name, hint in typing.get_type_hints(holder, names, include_extras=True).items()}


def _is_type(hint: Any) -> bool:
    """Tell whether pydantic can check against an annotation; it takes half a millisecond."""
    try:
        pydantic.TypeAdapter(hint, config=_CONFIG)
    except Exception:
        return False
    return True


def _strict(hint: Any) -> Any:
    """Make numbers, text, truth values and lists strict, wherever they stand; the rest may come as JSON has it."""
    if hint in (int, float, str, bool, list):
        return Annotated[hint, pydantic.Strict()]
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return Annotated[(_strict(inner[0]), *inner[1:])]
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(map(_strict, inner))]  # noqa: UP007  (the members are known only here)
    if origin in (list, dict, tuple, set, frozenset, Sequence, Mapping):
        hint = origin[tuple(each if each is ... else _strict(each) for each in inner)]
    return Annotated[hint, pydantic.Strict()] if origin is list else hint


_ABOVE_0 = (lambda value: value > 0, "a number above 0")
_AT_LEAST_0 = (lambda value: value >= 0, "a number of at least 0")
_UP_TO_1 = (lambda value: 0 <= value <= 1, "a number from 0 to 1")
# What optimizers and losses would refuse only once the data is loaded.
_BOUNDS: dict[str, tuple[Callable[[float], bool], str]] = {
    "lr": _ABOVE_0,
    "weight_decay": _AT_LEAST_0,
    "momentum": _AT_LEAST_0,
    "eps": _AT_LEAST_0,
    "label_smoothing": _UP_TO_1,
    "delta": _ABOVE_0,
    "beta": _AT_LEAST_0,
}


def foreign_arguments(
    target: ForeignClass, given: dict[str, Any], *, check_values: bool = True
) -> tuple[dict[str, Any], dict[str, str]]:
    """Check arguments for a class of a library.

    Args:
        target: The class.
        given: The arguments of the spec; those that the class does not take are faults.
        check_values: Whether a value has to be like the default. Off for scikit-learn, which checks values itself, with
            good messages, and often takes a word or null where it has a number as default.

    Returns:
        The arguments with all defaults that can be written down, and the faults by name of argument.
    """
    resolved: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for name, default in target.arguments.items():
        if name in given:
            fault = _foreign_fault(name, given[name], default) if check_values else None
            if fault:
                faults[name] = fault
            resolved[name] = given[name]
        elif not default:
            faults[name] = f"missing; {target.name} needs it"
        elif default[0] is not NoSource:
            resolved[name] = default[0]
    for name in given:
        if name not in target.arguments:
            hint = (
                did_you_mean(name, target.arguments) or f"; {target.name} takes {', '.join(sorted(target.arguments))}"
            )
            faults[name] = f"unknown key{hint}"
    return resolved, faults


def _foreign_fault(name: str, value: Any, default: tuple[Any, ...]) -> str | None:
    if default and not _is_like(value, default[0]):
        return f"got {value!r}; expected {_like(default[0])}"
    if name in _BOUNDS and _is_number(value) and not _BOUNDS[name][0](value):
        return f"got {value!r}; expected {_BOUNDS[name][1]}"
    return None


def _is_like(value: Any, default: Any) -> bool:
    """Tell whether a value may stand where a default does; only what is surely wrong is refused."""
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, int | float):
        return _is_number(value)
    if isinstance(default, list):
        return isinstance(value, list) and len(value) == len(default) and all(map(_is_like, value, default))
    return True


def _like(default: Any) -> str:
    if isinstance(default, list):
        return f"a list such as {default}"
    return "true or false" if isinstance(default, bool) else "a number"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
