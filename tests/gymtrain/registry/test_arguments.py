from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pydantic
import pytest

from gymtrain.registry import ForeignClass, arguments_model, find_foreign, foreign_arguments
from gymtrain.registry.libraries import NoSource

if TYPE_CHECKING:
    from somewhere import OnlyForTypeCheckers  # type: ignore[import-not-found]


class Colour(enum.Enum):
    RED = "red"


class Widget:
    def __init__(
        self,
        count: int = 1,
        rate: float = 0.5,
        name: str = "",
        flag: bool = False,
        sizes: list[Annotated[int, pydantic.Field(ge=1)]] = [1],
        pair: tuple[int, float] = (1, 2.0),
        table: dict[str, list[int]] = {},
        either: int | str = 1,
        maybe: float | None = None,
        choice: Literal["a", "b"] = "a",
        path: Path = Path(),
        colour: Colour = Colour.RED,
        items: Sequence[int] = (),
        mapping: Mapping[str, int] = {},
        array: np.ndarray[Any, Any] | None = None,
        bounded: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.0,
        unknown: OnlyForTypeCheckers = None,
        broken: "3 +" = None,  # type: ignore  # noqa: F722
        bare=None,  # type: ignore[no-untyped-def]
    ) -> OnlyForTypeCheckers: ...


def checked(**given: Any) -> Any:
    (name,) = given
    return getattr(arguments_model(Widget).model_validate(given), f"argument_{name}")


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("count", 3, 3),
        ("rate", 1, 1.0),
        ("sizes", [1, 2], [1, 2]),
        ("sizes", [], []),
        ("pair", [3, 4], (3, 4.0)),
        ("table", {"a": [1]}, {"a": [1]}),
        ("either", "x", "x"),
        ("either", 3, 3),
        ("maybe", None, None),
        ("maybe", 2, 2.0),
        ("choice", "b", "b"),
        ("path", "/tmp", Path("/tmp")),
        ("colour", "red", Colour.RED),
        ("colour", Colour.RED, Colour.RED),
        ("items", [1, 2], [1, 2]),
        ("mapping", {"a": 1}, {"a": 1}),
        ("bounded", 0, 0.0),
        ("unknown", object, object),
        ("broken", object, object),
        ("bare", object, object),
    ],
)
def test_a_value_that_fits_is_taken(name: str, given: Any, expected: Any) -> None:
    value = checked(**{name: given})

    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("count", "3"),
        ("count", 3.0),
        ("count", True),
        ("count", None),
        ("count", np.zeros(2)),
        ("rate", "0.5"),
        ("rate", True),
        ("rate", float("nan")),
        ("rate", float("inf")),
        ("name", 3),
        ("name", None),
        ("flag", 1),
        ("flag", "true"),
        ("flag", None),
        ("sizes", ["1"]),
        ("sizes", [1.0]),
        ("sizes", [True]),
        ("sizes", [0]),
        ("sizes", 1),
        ("sizes", "12"),
        ("sizes", {1}),
        ("sizes", range(2)),
        ("sizes", np.array([1])),
        ("pair", [1]),
        ("pair", [1, 2, 3]),
        ("pair", ["1", 2]),
        ("table", {"a": ["1"]}),
        ("table", {1: [1]}),
        ("either", 1.0),
        ("either", True),
        ("maybe", "1"),
        ("choice", "c"),
        ("path", 3),
        ("colour", "blue"),
        ("items", ["1"]),
        ("items", "12"),
        ("mapping", {"a": "1"}),
        ("array", [1.0]),
        ("bounded", 1.0),
        ("bounded", -0.1),
    ],
)
def test_a_value_of_another_type_or_out_of_bounds_is_refused(name: str, given: Any) -> None:
    with pytest.raises(pydantic.ValidationError, match=rf"\n{name}"):
        checked(**{name: given})


def test_an_annotation_for_type_checkers_takes_no_checks_from_the_other_arguments() -> None:
    # As in gymtrain.models.networks, where torch is imported for type checkers alone.
    def build(size: int = 1) -> OnlyForTypeCheckers: ...

    with pytest.raises(pydantic.ValidationError, match="valid integer"):
        arguments_model(build).model_validate({"size": "many"})


def test_an_unknown_argument_and_a_missing_one_are_refused() -> None:
    def build(needed: int) -> None: ...

    with pytest.raises(pydantic.ValidationError, match=r"needed\n  Field required") as caught:
        arguments_model(build).model_validate({"neded": 1})

    assert [entry["type"] for entry in caught.value.errors()] == ["missing", "extra_forbidden"]


def test_injected_arguments_are_not_the_users_to_give() -> None:
    def build(size: int, output_size: int) -> None: ...

    model = arguments_model(build, frozenset({"output_size"}))

    assert model.model_validate({"size": 1}).model_dump(by_alias=True) == {"size": 1}
    with pytest.raises(pydantic.ValidationError, match="output_size"):
        model.model_validate({"size": 1, "output_size": 2})


def test_keyword_arguments_make_a_class_take_any_name() -> None:
    def build(size: int = 1, **rest: Any) -> None: ...

    checked = arguments_model(build).model_validate({"colour": "red"})

    assert checked.model_extra == {"colour": "red"}


def test_names_that_pydantic_keeps_for_itself_are_arguments_like_others() -> None:
    def build(copy: bool = True, json: str = "", model_config: int = 1, _private: int = 2) -> None: ...

    dumped = arguments_model(build).model_validate({"copy": False}).model_dump(by_alias=True)

    assert dumped == {"copy": False, "json": "", "model_config": 1, "_private": 2}


def test_a_default_that_is_a_list_is_not_shared() -> None:
    first, second = checked_default(), checked_default()
    first.append(3)

    assert second == [1]


def checked_default() -> list[int]:
    value: list[int] = arguments_model(Widget).model_validate({}).argument_sizes  # type: ignore[attr-defined]
    return value


@pytest.mark.parametrize("target", [int, dict, type])
def test_a_class_without_a_signature_is_refused(target: type) -> None:
    with pytest.raises(ValueError, match="no signature found"):
        arguments_model(target)


def found(library: str, name: str) -> ForeignClass:
    target = find_foreign(library, name)
    assert target is not None
    return target


def test_the_defaults_of_a_library_are_written_out() -> None:
    resolved, faults = foreign_arguments(found("optimizer", "SGD"), {"momentum": 0.9})

    assert faults == {}
    assert resolved["lr"] == 0.001
    assert resolved["momentum"] == 0.9
    assert resolved["nesterov"] is False


def test_a_default_that_is_no_literal_is_left_to_the_class() -> None:
    target = ForeignClass("Thing", "somewhere", {"a": (NoSource,), "b": (1,)})

    assert foreign_arguments(target, {}) == ({"b": 1}, {})


@pytest.mark.parametrize(
    ("library", "name", "given", "message"),
    [
        ("optimizer", "SGD", {"lr": 0}, "got 0; expected a number above 0"),
        ("optimizer", "SGD", {"lr": -1.0}, "got -1.0; expected a number above 0"),
        ("optimizer", "SGD", {"lr": "fast"}, "got 'fast'; expected a number"),
        ("optimizer", "SGD", {"lr": True}, "got True; expected a number"),
        ("optimizer", "SGD", {"lr": None}, "got None; expected a number"),
        ("optimizer", "SGD", {"momentum": -0.1}, "got -0.1; expected a number of at least 0"),
        ("optimizer", "SGD", {"nesterov": 1}, "got 1; expected true or false"),
        ("optimizer", "Adam", {"betas": [0.9]}, "got [0.9]; expected a list such as [0.9, 0.999]"),
        ("optimizer", "Adam", {"betas": [0.9, "x"]}, "got [0.9, 'x']; expected a list such as [0.9, 0.999]"),
        ("optimizer", "Adam", {"betas": 0.9}, "got 0.9; expected a list such as [0.9, 0.999]"),
        ("optimizer", "Adam", {"beta": [0.9, 0.9]}, "unknown key; did you mean 'betas'?"),
        ("loss", "CrossEntropyLoss", {"label_smoothing": 2}, "got 2; expected a number from 0 to 1"),
        ("loss", "HuberLoss", {"delta": 0}, "got 0; expected a number above 0"),
        ("loss", "MSELoss", {"weight": 1}, "unknown key; MSELoss takes "),
    ],
)
def test_an_argument_that_a_library_would_refuse_later_is_refused_now(
    library: str, name: str, given: dict[str, Any], message: str
) -> None:
    _, faults = foreign_arguments(found(library, name), given)

    assert faults == {next(iter(given)): message}


def test_an_argument_without_a_default_is_asked_for() -> None:
    _, faults = foreign_arguments(found("estimator", "StackingClassifier"), {}, check_values=False)

    assert faults == {"estimators": "missing; StackingClassifier needs it"}


def test_values_for_scikit_learn_are_left_to_it() -> None:
    resolved, faults = foreign_arguments(found("estimator", "PCA"), {"n_components": "mle"}, check_values=False)

    assert faults == {}
    assert resolved["n_components"] == "mle"
