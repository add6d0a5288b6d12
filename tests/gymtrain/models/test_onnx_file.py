from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from gymtrain import BundleError
from gymtrain.models import onnx_file
from gymtrain.models.onnx_file import refusal
from gymtrain.models.onnx_learner import OnnxLearner
from gymtrain.models.tasks import Regression

WEIGHT = np.arange(6, dtype=np.float32).reshape(3, 2)


def linear(change: Callable[[Any], object] = lambda model: None, *, outputs: str = "outputs") -> bytes:
    """A multiplication of rows with three numbers, and something else."""
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["rows", 3])
    result = helper.make_tensor_value_info(outputs, TensorProto.FLOAT, ["rows", 2])
    node = helper.make_node("MatMul", ["rows", "weight"], [outputs])
    graph = helper.make_graph([node], "graph", [rows], [result], [numpy_helper.from_array(WEIGHT, "weight")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    change(model)
    return model.SerializeToString()


def weight_of(model: Any) -> Any:
    return model.graph.initializer[0]


def outside(model: Any) -> None:
    tensor = weight_of(model)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def with_branch(model: Any) -> None:
    branch = helper.make_graph([helper.make_node("Identity", ["rows"], ["same"])], "branch", [], [])
    model.graph.node.append(helper.make_node("If", ["rows"], ["chosen"], then_branch=branch, else_branch=branch))


def with_function(model: Any) -> None:
    model.functions.append(helper.make_function("", "Mine", ["a"], ["b"], [], [helper.make_opsetid("", 18)]))


def typed(model: Any) -> None:
    weight_of(model).ClearField("raw_data")
    weight_of(model).float_data.extend(range(6))


def test_a_plain_graph_is_accepted_and_run():
    learner = OnnxLearner(linear(), Regression(2))

    np.testing.assert_array_equal(learner.scores(np.eye(3, dtype=np.float32)), WEIGHT)


def test_a_graph_that_looks_like_the_own_format_of_onnxruntime_is_read_as_the_onnx_that_was_looked_at():
    data = linear(lambda model: setattr(model, "producer_name", "ORTM"))

    learner = OnnxLearner(data, Regression(2))

    assert data[4:8] == b"ORTM"
    np.testing.assert_array_equal(learner.scores(np.eye(3, dtype=np.float32)), WEIGHT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (outside, r"field 1[34] of a tensor"),
        (with_branch, r"field 6 of an attribute"),
        (with_function, r"field 25 of a model"),
        (typed, r"field 4 of a tensor"),
        (lambda model: setattr(model.graph.node[0], "domain", "com.microsoft"), r"not those of ONNX itself"),
        (lambda model: model.opset_import.append(helper.make_opsetid("my.own", 1)), r"not those of ONNX itself"),
        (lambda model: setattr(weight_of(model), "raw_data", b"1234"), r"not those of its type and shape"),
        (lambda model: weight_of(model).dims.extend([1 << 62]), r"not those of its type and shape"),
        (lambda model: setattr(weight_of(model), "data_type", TensorProto.STRING), r"not those of its type and shape"),
        (lambda model: model.ClearField("graph"), r"no graph"),
        (lambda model: model.metadata_props.add(key="a", value="b"), r"field 14 of a model"),
    ],
)
def test_what_may_do_more_than_compute_is_refused(change: Callable[[Any], object], message: str):
    with pytest.raises(BundleError, match=rf"^model\.onnx: it holds .*{message}") as raised:
        OnnxLearner(linear(change), Regression(2))

    assert raised.value.reason == "onnx"


@pytest.mark.parametrize("end", range(1, 60, 7))
def test_a_graph_that_is_cut_is_refused(end: int):
    with pytest.raises(BundleError, match=r"^model\.onnx: ") as raised:
        OnnxLearner(linear()[:-end], Regression(2))

    assert raised.value.reason == "onnx"


def test_a_graph_of_more_fields_than_anybody_needs_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(onnx_file, "MAX_FIELDS", 10)

    assert refusal(linear()) == "more than 10 fields"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (linear(lambda model: setattr(model.graph.node[0], "op_type", "Nothing")), r"onnxruntime: .*Nothing"),
        (linear(lambda model: setattr(model.graph.node[0], "op_type", "Add")), r"onnxruntime: "),
        (linear(outputs="others"), r"onnxruntime: .*outputs"),
    ],
)
def test_a_graph_that_does_not_run_is_refused(data: bytes, message: str):
    with pytest.raises(BundleError, match=rf"(?s)^model\.onnx: {message}") as raised:
        OnnxLearner(data, Regression(2)).scores(np.ones((4, 3), np.float32))

    assert raised.value.reason == "onnx"


def test_outputs_of_another_shape_are_refused():
    with pytest.raises(BundleError, match=r"^model\.onnx: expected float32 outputs of shape \(\d+, 5\)"):
        OnnxLearner(linear(), Regression(5)).scores(np.ones((4, 3), np.float32))


@given(st.binary(max_size=200) | st.tuples(st.integers(0, 150), st.integers(0, 255)))
def test_anything_at_all_is_accepted_or_refused_in_words(change: Any):
    data = bytearray(linear())
    if isinstance(change, bytes):
        data = bytearray(change)
    else:
        data[change[0] % len(data)] = change[1]

    assert refusal(bytes(data)) != ""


def test_a_number_without_an_end_is_refused():
    assert refusal(b"\xff" * 20) == "a number of more than 64 bits"
    assert refusal(b"\x3a" + struct.pack("B", 200)) == "it ends too early"
