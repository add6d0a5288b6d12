from __future__ import annotations

import inspect
import pickle
import re

import pytest

from gymtrain import errors
from gymtrain.errors import (
    BundleError,
    CallbackError,
    DataError,
    DownloadError,
    Fault,
    GymtrainError,
    InputError,
    MissingDependencyError,
    NonFiniteLossError,
    NotTrainedError,
    RegistrationError,
    SaveError,
    SpecError,
    StoreError,
    TaskError,
    TrainingError,
    did_you_mean,
    some,
)

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, Exception) and value.__module__ == errors.__name__
}


@pytest.mark.parametrize(
    ("error", "built_in"),
    [
        (BundleError, ValueError),
        (CallbackError, RuntimeError),
        (DataError, ValueError),
        (DownloadError, OSError),
        (InputError, ValueError),
        (MissingDependencyError, ImportError),
        (NonFiniteLossError, RuntimeError),
        (NotTrainedError, RuntimeError),
        (RegistrationError, ValueError),
        (SaveError, RuntimeError),
        (SpecError, ValueError),
        (StoreError, ValueError),
        (TaskError, ValueError),
        (TrainingError, RuntimeError),
    ],
)
def test_every_error_is_also_the_built_in_one_that_fits(error: type[GymtrainError], built_in: type[Exception]) -> None:
    assert issubclass(error, GymtrainError)
    assert issubclass(error, built_in)


def test_the_drawing_of_the_tree_shows_every_error_and_no_other() -> None:
    drawn = set(re.findall(r"\b[A-Z]\w+Error\b", re.sub(r"\(.*?\)", "", errors.__doc__ or "")))

    assert drawn == set(CLASSES)


def test_the_drawing_names_the_built_in_bases() -> None:
    drawn = dict(re.findall(r"([A-Z]\w+Error) \((\w+)\)", errors.__doc__ or ""))

    assert {name: base.__name__ for name, error in CLASSES.items() for base in error.__bases__[1:]} == drawn


def test_a_spec_error_lists_every_fault_on_a_line_of_its_own() -> None:
    error = SpecError([Fault("model.a", "is wrong"), Fault("model.b", "is too")])

    assert str(error) == "2 problems in the spec:\n  model.a: is wrong\n  model.b: is too"
    assert error.faults == (("model.a", "is wrong"), ("model.b", "is too"))


def test_a_spec_error_with_one_fault_is_in_the_singular() -> None:
    assert str(SpecError([Fault("a", "b")])) == "1 problem in the spec:\n  a: b"


def test_a_bundle_error_carries_a_reason_for_programs() -> None:
    error = BundleError("weights.safetensors: changed", reason="digest")

    assert (str(error), error.reason) == ("weights.safetensors: changed", "digest")


@pytest.mark.parametrize(
    "error",
    [
        SpecError([Fault("model", "is wrong")]),
        BundleError("changed", reason="digest"),
        DataError("no rows"),
        DownloadError("gone"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_comes_whole_out_of_another_process(error: GymtrainError) -> None:
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("batch_sise", "; did you mean 'batch_size'?"),
        ("BATCH_SIZE", "; did you mean 'batch_size'?"),
        ("adamw", "; did you mean 'AdamW'?"),
        ("zebra", ""),
        ("", ""),
    ],
)
def test_the_nearest_name_is_suggested_whatever_its_case(name: str, hint: str) -> None:
    assert did_you_mean(name, ["batch_size", "epochs", "AdamW"]) == hint


@pytest.mark.parametrize(
    ("items", "text"),
    [([], ""), (["a"], "'a'"), ([1, 2, 3], "1, 2, 3"), (iter("abcd"), "'a', 'b', 'c' and 1 more")],
)
def test_a_long_list_is_cut_and_counted(items: list[object], text: str) -> None:
    assert some(items, limit=3) == text
