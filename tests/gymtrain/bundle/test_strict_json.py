from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gymtrain.bundle.strict_json import dumps, loads
from gymtrain.errors import BundleError, SaveError

text = st.text(st.characters(exclude_categories=["Cs"]))
scalars = (
    st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.floats(allow_nan=False, allow_infinity=False) | text
)
documents = st.dictionaries(
    text, st.recursive(scalars, lambda below: st.lists(below) | st.dictionaries(text, below), max_leaves=20)
)


@settings(max_examples=50)
@given(documents)
def test_what_is_written_is_read_back_equal(document: dict[str, Any]):
    assert loads(dumps(document, "spec.json"), "spec.json") == document


@settings(max_examples=50)
@given(documents)
def test_the_order_of_keys_does_not_change_the_bytes(document: dict[str, Any]):
    assert dumps(dict(reversed(document.items())), "spec.json") == dumps(document, "spec.json")


REFUSED = [
    (b"", "json", "Expecting value"),
    (b"{", "json", "Expecting property name"),
    (b"{} {}", "json", "Extra data"),
    (b"{'a': 1}", "json", "Expecting property name"),
    (b'{"a": 1, "a": 1}', "json", "the key 'a' occurs twice"),
    (b'{"b": {"a": 1, "\\u0061": 1}}', "json", "the key 'a' occurs twice"),
    (b'{"a": NaN}', "json", "NaN is not a JSON number"),
    (b'{"a": -Infinity}', "json", "-Infinity is not a JSON number"),
    (b'{"a": 1e999}', "json", "1e999 is too large for a 64-bit float"),
    (b'{"a": ' + b"1" * 5000 + b"}", "too_large", "an integer of 5000 digits"),
    (b'{"a": "\xff"}', "json", "invalid start byte"),
    (b"\xef\xbb\xbf{}", "json", "BOM"),
    ("{}".encode("utf-16"), "json", "invalid start byte"),
    (b'{"a": "\\ud800"}', "json", "surrogates not allowed"),
    (b'{"\\udfff": 1}', "json", "surrogates not allowed"),
    (b'{"a": "\n"}', "json", "Invalid control character"),
    (b'{"a":' * 65 + b"1" + b"}" * 65, "json", "nested deeper than 64 levels"),
    (b'{"a":' + b"[" * 900 + b"]" * 900 + b"}", "json", "nested deeper than 64 levels"),
    (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "json", "nested deeper than 64 levels"),
    (b"[" * 100_000, "json", "nested deeper than 64 levels"),
    (b'{"a":[' + b"[]," * 600_000 + b"1]}", "too_large", "values, more than the 500000"),
    (b'{"a":"' + b"x" * (16 << 20) + b'"}', "too_large", "bytes, more than the 16777216"),
    (b"[]", "field_value", "got a list, expected an object"),
    (b"null", "field_value", "got a NoneType, expected an object"),
]


@pytest.mark.parametrize(
    ("data", "reason", "message"),
    REFUSED,
    ids=[f"{case[1]}: {case[2]}" for case in REFUSED],
)
def test_a_document_that_two_readers_could_read_differently_is_refused(data: bytes, reason: str, message: str):
    with pytest.raises(BundleError, match=rf"^spec\.json: .*{message}") as caught:
        loads(data, "spec.json")
    assert caught.value.reason == reason


def test_64_levels_are_read_and_written_and_65_are_not():
    document: dict[str, Any] = {}
    for _ in range(64):
        document = {"a": document}
    assert loads(dumps(document, "spec.json"), "spec.json") == document

    with pytest.raises(SaveError, match="nested deeper than 64 levels"):
        dumps({"a": document}, "spec.json")


def test_what_refers_to_itself_is_not_written():
    document: dict[str, Any] = {}
    document["self"] = document

    with pytest.raises(SaveError, match="nested deeper than 64 levels"):
        dumps(document, "spec.json")
