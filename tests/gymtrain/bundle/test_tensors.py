from __future__ import annotations

import io
import math

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from gymtrain.bundle.tensors import ITEM_BYTES, Tensor, encoded_bytes, from_numpy, parse, to_numpy, write
from gymtrain.errors import BundleError, SaveError

NUMPY_DTYPES = ["?", "u1", "i1", "<u2", "<i2", "<f2", "<u4", "<i4", "<f4", "<u8", "<i8", "<f8", "<c8", ">f4", ">i8"]
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(lambda name: name != "__metadata__")
shapes = npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
arrays = st.dictionaries(names, npst.arrays(st.sampled_from(NUMPY_DTYPES), shapes), max_size=6)


@st.composite
def raw_tensors(draw: st.DrawFn) -> Tensor:
    """Tensors of any dtype of the format, also those that numpy does not have."""
    dtype, shape = draw(st.sampled_from(sorted(ITEM_BYTES))), draw(shapes)
    return Tensor(dtype, shape, bytes(math.prod(shape) * ITEM_BYTES[dtype]))


def encode(tensors: dict[str, Tensor]) -> bytes:
    file = io.BytesIO()
    write(file, tensors)
    return file.getvalue()


def assert_same(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].shape == array.shape
        assert got[name].dtype == array.dtype.newbyteorder("<")
        assert got[name].tobytes() == array.astype(array.dtype.newbyteorder("<")).tobytes()


@given(arrays)
def test_arrays_of_any_dtype_and_shape_come_back_bit_for_bit(expected: dict[str, np.ndarray]):
    data = encode({name: from_numpy(array) for name, array in expected.items()})

    assert_same({name: to_numpy(tensor) for name, tensor in parse(data).items()}, expected)


@given(st.dictionaries(names, raw_tensors(), max_size=6))
def test_tensors_of_any_dtype_come_back_aligned_and_as_long_as_was_announced(tensors: dict[str, Tensor]):
    data = encode(tensors)

    assert len(data) == encoded_bytes(tensors)
    assert (8 + int.from_bytes(data[:8], "little")) % 64 == 0
    assert parse(data) == tensors


@given(arrays)
def test_the_safetensors_library_reads_what_we_write(expected: dict[str, np.ndarray]):
    data = encode({name: from_numpy(array) for name, array in expected.items()})

    assert_same(safetensors.numpy.load(data), expected)


@given(arrays)
def test_we_read_what_the_safetensors_library_writes(expected: dict[str, np.ndarray]):
    little = {name: array.astype(array.dtype.newbyteorder("<")) for name, array in expected.items()}

    data = safetensors.numpy.save(little, metadata={"made": "elsewhere"})

    assert_same({name: to_numpy(tensor) for name, tensor in parse(data).items()}, expected)


def test_the_safetensors_library_knows_every_dtype_that_we_write():
    data = encode({dtype: Tensor(dtype, (3,), bytes(3 * size)) for dtype, size in ITEM_BYTES.items()})

    assert {name: entry["dtype"] for name, entry in safetensors.deserialize(data)} == {
        name: name for name in ITEM_BYTES
    }


def test_memory_is_shared_in_both_directions():
    array = np.arange(6.0).reshape(2, 3)

    tensor = from_numpy(array)
    again = to_numpy(tensor)
    array[0, 0] = 7

    assert again[0, 0] == 7


def test_arrays_in_any_memory_order_are_saved_in_c_order():
    array = np.arange(24).reshape(2, 3, 4)

    for view in (array.T, array[::-1], array[:, ::2], np.asfortranarray(array)):
        np.testing.assert_array_equal(to_numpy(from_numpy(view)), view)


def test_metadata_is_there_for_other_readers():
    file = io.BytesIO()

    write(file, {}, {"format": "pt"})

    assert b'"__metadata__":{"format":"pt"}' in file.getvalue()
    assert parse(file.getvalue()) == {}


@pytest.mark.parametrize("array", [np.array([None]), np.array(["a"]), np.zeros(1, "M8[s]"), np.zeros(1, np.complex128)])
def test_arrays_that_the_format_has_no_dtype_for_are_not_saved(array: np.ndarray):
    with pytest.raises(SaveError, match="cannot be saved; expected one of"):
        from_numpy(array)


def test_numpy_has_no_bfloat16():
    with pytest.raises(BundleError, match="numpy has no dtype for BF16") as caught:
        to_numpy(Tensor("BF16", (1,), bytes(2)))
    assert caught.value.reason == "weights_dtype"


def test_too_many_tensors_are_not_written():
    tensors = {f"{index:0100d}": Tensor("U8", (0,), b"") for index in range(10_000)}

    with pytest.raises(SaveError, match="10000 tensors are too many"):
        encode(tensors)


def header(text: bytes, data: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text + data


def one(entry: bytes, data: bytes = b"") -> bytes:
    text = b'{"w":' + entry + b"}"
    return header(text + b" " * (-len(text) % 8), data)


def tensor(shape: str = "[1]", offsets: str = "[0,1]", dtype: str = '"U8"', data: bytes = b"x") -> bytes:
    return one(f'{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}'.encode(), data)


TWO = b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[%d,%d]}}'
ODD = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
HOSTILE = [
    ("nothing", b"", "weights_header"),
    ("shorter than a length", b"\2\0\0", "weights_header"),
    ("no header", bytes(8), "weights_header"),
    ("a length of 2^63-1", (2**63 - 1).to_bytes(8, "little") + b"{}", "weights_header"),
    ("a length over the end", (3).to_bytes(8, "little") + b"{}", "weights_header"),
    ("a pickle", b"\x80\x04\x95\x1f\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.", "weights_header"),
    ("a .npy of objects", b"\x93NUMPY\x01\0v\0{'descr': '|O', 'shape': (1,), }", "weights_header"),
    ("a .npz or .pt", b"PK\3\4" + bytes(100), "weights_header"),
    ("a list", header(b"[]"), "weights_header"),
    ("a space before the object", header(b" {}"), "weights_header"),
    ("something after the object", header(b"{}x"), "weights_header"),
    ("NaN", tensor("[NaN]", offsets="[0,0]", data=b""), "weights_header"),
    ("invalid UTF-8", header(b'{"\xff":{}}'), "weights_header"),
    ("a deep header", header(b'{"w":' + b"[" * 900 + b"]" * 900 + b"}"), "weights_header"),
    ("a very deep header", header(b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "weights_header"),
    ("an equal name", header(b'{"w":{},"w":{}}'), "weights_header"),
    ("a number as entry", one(b"1"), "weights_header"),
    ("no dtype", one(b'{"shape":[1],"data_offsets":[0,1]}', b"x"), "weights_header"),
    ("an unknown key", one(b'{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}', b"x"), "weights_header"),
    ("metadata that is no text", header(b'{"__metadata__":{"a":1}}'), "weights_header"),
    ("metadata that is no object", header(b'{"__metadata__":[]}'), "weights_header"),
    ("a header of 2 MiB", header(b"{}" + b" " * (2 << 20)), "weights_header"),
    ("an unknown dtype", tensor(offsets="[0,4]", dtype='"F31"', data=b"1234"), "weights_dtype"),
    ("a dtype that is a list", tensor(offsets="[0,4]", dtype='[]', data=b"1234"), "weights_dtype"),
    ("a negative size", tensor("[-1]"), "weights_layout"),
    ("negative sizes that multiply well", tensor("[-1,-1]"), "weights_layout"),
    ("a size of 1.0", tensor("[1.0]"), "weights_layout"),
    ("a size of true", tensor("[true]"), "weights_layout"),
    ("a shape that is a number", tensor("1"), "weights_layout"),
    ("33 dimensions", tensor(str([1] * 33)), "weights_layout"),
    ("sizes that overflow 64 bits", tensor(f"[{2**32},{2**32}]", offsets="[0,0]", data=b""), "weights_layout"),
    ("sizes that overflow beside a zero", tensor(f"[0,{2**32},{2**32}]", offsets="[0,0]", data=b""), "weights_layout"),
    ("fewer bytes than the shape", tensor("[2]", offsets="[0,4]", dtype='"F32"', data=b"1234"), "weights_layout"),
    ("offsets over the end", tensor("[2]", offsets="[0,2]"), "weights_layout"),
    ("offsets backwards", tensor(offsets="[1,0]"), "weights_layout"),
    ("three offsets", tensor(offsets="[0,1,1]"), "weights_layout"),
    ("a negative offset", tensor(offsets="[-1,0]"), "weights_layout"),
    ("bytes before the first tensor", tensor(offsets="[1,2]", data=b"xy"), "weights_layout"),
    ("bytes after the last tensor", tensor(data=b"xy"), "weights_layout"),
    ("bytes and no tensor", header(b"{}", b"x"), "weights_layout"),
    ("an overlap", header(TWO % (1, 3), b"abc"), "weights_layout"),
    ("two tensors of the same bytes", header(TWO % (0, 2), b"ab"), "weights_layout"),
    ("a gap", header(TWO % (3, 5), b"abcde"), "weights_layout"),
    ("items off their alignment", header(ODD, b"1234"), "weights_layout"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "reason"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_a_hostile_layout_is_refused_with_its_reason(data: bytes, reason: str):
    with pytest.raises(BundleError, match=r"^weights\.safetensors") as caught:
        parse(data)
    assert caught.value.reason == reason


def test_a_header_of_a_million_empty_tensors_is_refused_before_it_is_parsed():
    entry = '"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    text = ("{" + ",".join(entry % index for index in range(200_000)) + "}").encode()

    with pytest.raises(BundleError, match=r"a header of \d+ bytes; expected 2 to") as caught:
        parse(header(text))
    assert caught.value.reason == "weights_header"


@pytest.mark.parametrize(
    ("expected", "reason", "message"),
    [
        ({}, "weights_names", "unexpected 'bias', 'weight'"),
        ({"weight": ("F32", (2, 3))}, "weights_names", "unexpected 'bias'"),
        (
            {"weight": ("F32", (2, 3)), "bias": ("F32", (3,)), "more": ("U8", ())},
            "weights_names",
            "missing 'more'",
        ),
        ({"weight": ("F32", (2, 3)), "biases": ("F32", (3,))}, "weights_names", "missing 'biases'; unexpected 'bias'"),
        (
            {"weight": ("F32", (3, 2)), "bias": ("F32", (3,))},
            "weights_shape",
            r"'weight' has shape \(2, 3\), expected \(3, 2\)",
        ),
        ({"weight": ("F64", (2, 3)), "bias": ("F32", (3,))}, "weights_dtype", "'weight' is F32, expected F64"),
    ],
)
def test_tensors_that_the_model_does_not_expect_are_refused(
    expected: dict[str, tuple[str, tuple[int, ...]]], reason: str, message: str
):
    tensors = {"weight": from_numpy(np.zeros((2, 3), np.float32)), "bias": from_numpy(np.zeros(3, np.float32))}

    with pytest.raises(BundleError, match=message) as caught:
        parse(encode(tensors), expected=expected)
    assert caught.value.reason == reason


def test_tensors_that_the_model_expects_are_returned():
    data = encode({"weight": from_numpy(np.zeros((2, 3), np.float32))})

    assert parse(data, expected={"weight": ("F32", (2, 3))}).keys() == {"weight"}
