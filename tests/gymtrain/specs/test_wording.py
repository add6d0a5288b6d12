from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import BaseModel, Field

from gymtrain.specs.wording import in_words, shortened


class Part(BaseModel):
    pass


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "an integer"),
        (float, "a number"),
        (str, "text"),
        (bool, "true or false"),
        (dict, "a dict"),
        (list, "a list"),
        (Path, "a Path"),
        (Part, "a dict"),
        (int | None, "an integer, or null"),
        (int | str, "an integer or text"),
        (int | str | None, "an integer or text, or null"),
        (Literal["a"], "'a'"),
        (Literal["a", "b"], "'a' or 'b'"),
        (Literal["a", "b", 3], "'a', 'b' or 3"),
        (list[int], "a list of integers"),
        (list[list[str]], "a list of lists of texts"),
        (tuple[int, ...], "a list of integers"),
        (dict[str, float], "a dict of numbers"),
        (list[bool], "a list of true or false"),
        (Annotated[int, Field(ge=1)], "an integer of at least 1"),
        (Annotated[int, Field(gt=0)], "an integer above 0"),
        (Annotated[int, Field(ge=1, le=9)], "an integer from 1 to 9"),
        (Annotated[float, Field(ge=0, lt=1)], "a number of at least 0 and below 1"),
        (Annotated[float, Field(gt=0, le=1)], "a number above 0 and of at most 1"),
        (Annotated[int, Field(ge=1)] | None, "an integer of at least 1, or null"),
        (Annotated[str, Field(min_length=1)], "text that is not empty"),
        (list[Annotated[str, Field(min_length=1)]], "a list of texts that are not empty"),
        (Annotated[list[int], Field(min_length=2, max_length=2)], "a list of integers, exactly 2 of them"),
        (Annotated[list[int], Field(min_length=1)], "a list of integers, at least 1 of them"),
        (
            Annotated[list[Annotated[int, Field(ge=1)]], Field(max_length=9)],
            "a list of integers of at least 1, at most 9 of them",
        ),
    ],
)
def test_what_an_annotation_allows_is_said_in_words(annotation: Any, words: str) -> None:
    assert in_words(annotation) == words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("short", "'short'"),
        ([1, 2, 3, 4, 5], "[1, 2, 3, …"),
        (np.zeros((2, 3)), "ndarray of shape (2, 3)"),
        (np.float64(1.5), "np.float64(1.5)"),
    ],
)
def test_a_value_is_shown_short(value: object, text: str) -> None:
    assert shortened(value, limit=15 if isinstance(value, np.float64) else 10) == text
