"""A torch module that has become an ONNX file: it predicts in onnxruntime, without its class."""

from __future__ import annotations

import io
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import numpy as np
import torch
from torch import nn

from gymtrain.data.padding import padded
from gymtrain.errors import BundleError, MissingDependencyError, SaveError
from gymtrain.models.contract import Array, Learner, State
from gymtrain.models.onnx_file import refusal
from gymtrain.models.tasks import Task
from gymtrain.models.torch_learner import TorchLearner

_INPUT, _OUTPUT = "rows", "outputs"
_EXTRAS = {"onnxruntime": "onnxruntime", "onnx": "onnx", "onnxscript": "onnx"}
_TALKATIVE = ("torch.onnx._internal.exporter._registration", "torch.fx.experimental.symbolic_shapes")


class OnnxLearner(Learner):
    """A model in ONNX and its task.

    Args:
        data: The file.
        task: What is predicted.

    Raises:
        BundleError: `onnx`: The file holds what `to_onnx` never writes, or onnxruntime cannot read it.
        MissingDependencyError: onnxruntime is not installed.
    """

    def __init__(self, data: bytes, task: Task) -> None:
        self.task = task
        self._data = data
        refused = refusal(data)
        if refused is not None:
            raise BundleError(f"model.onnx: it holds {refused}", reason="onnx")
        self._open()

    @property
    def has_probabilities(self) -> bool:
        """Whether the task has classes."""
        return self.task.has_probabilities

    def scores(self, X: Array, *, exact: bool = True) -> Array:
        """Return what the task makes of the model's outputs, float32.

        Raises:
            BundleError: `onnx`: The model fails, or its outputs do not have the shape that the task needs.
        """
        rows = padded(X) if exact else X
        if self._process != os.getpid():
            self._open()  # the threads of onnxruntime do not survive a fork
        try:
            outputs = self._session.run([_OUTPUT], {_INPUT: np.ascontiguousarray(rows, dtype=np.float32)})[0]
        except Exception as error:
            raise BundleError(f"model.onnx: onnxruntime: {error}", reason="onnx") from error
        expected = (len(rows), self.task.output_size)
        if getattr(outputs, "shape", None) != expected or outputs.dtype != np.float32:
            raise BundleError(f"model.onnx: expected float32 outputs of shape {expected}", reason="onnx")
        scores: Array = self.task.activate(torch.from_numpy(outputs)).numpy()
        return scores[: len(X)]

    def save(self) -> State:
        """Refuse.

        Raises:
            SaveError: Always: what it was made of is not here.
        """
        raise SaveError("this trainer predicts through model.onnx, without the class of its model; copy its file")

    def restore(self, state: State) -> None:
        """Take back nothing: the file is given to the constructor."""

    def _open(self) -> None:
        runtime = _imported("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # what fails is raised
        options.intra_op_num_threads = 1  # several add up in another order
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Else "ORTM" at the fifth byte has them read in a format of onnxruntime's own, which `refusal` does not know.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        try:
            self._session = runtime.InferenceSession(self._data, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BundleError(f"model.onnx: onnxruntime: {error}", reason="onnx") from error
        self._process = os.getpid()


class _Outputs(nn.Module):
    """What a learner runs: from float32 rows to float32 outputs, whatever the module computes in."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self.dtype = module, dtype

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.module(rows.to(self.dtype)).float()
        return outputs


def to_onnx(learner: TorchLearner, input_shape: tuple[int, ...]) -> bytes:
    """Return a module, in evaluation mode and for any number of rows, as a file in ONNX; equal ones give equal bytes.

    Args:
        learner: With the module, on the CPU.
        input_shape: Of one row.

    Raises:
        SaveError: The module does something that cannot be exported, or that a reader would refuse.
        MissingDependencyError: onnx, onnxscript or onnxruntime is not installed.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        _imported(package)
    name = type(learner.module).__name__
    try:
        with _quiet():
            program = torch.onnx.export(
                _Outputs(learner.module.eval(), learner.dtype).eval(),
                (torch.zeros(2, *input_shape),),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("rows")},),
                input_names=[_INPUT],
                output_names=[_OUTPUT],
                verbose=False,
            )
            assert program is not None
            data = _bare(program.model_proto)
    except Exception as error:
        told = _first_line(error)
        raise SaveError(f"portable: {name} cannot be exported to ONNX: {told}; save without portable") from error
    refused = refusal(data)
    if refused is not None:
        raise SaveError(f"portable: in ONNX {name} holds {refused}, which a reader refuses; save without portable")
    return data


def _bare(model: Any) -> bytes:
    """Return a model without names of files and classes, and with the bytes of every tensor in one form."""
    import onnx
    from onnx import inliner, numpy_helper

    if model.functions:
        model = inliner.inline_local_functions(model)
    graph = model.graph
    del graph.value_info[:], graph.metadata_props[:], model.metadata_props[:]
    tensors = [*graph.initializer]
    for node in graph.node:
        del node.metadata_props[:]
        node.ClearField("doc_string")
        node.ClearField("overload")
        tensors += [attribute.t for attribute in node.attribute if attribute.type == onnx.AttributeProto.TENSOR]
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
    for tensor in tensors:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    for value in [*graph.input, *graph.output]:
        del value.metadata_props[:]
    for field in ("doc_string", "domain", "model_version"):
        model.ClearField(field)
    graph.ClearField("doc_string")
    used = {node.domain for node in graph.node}
    kept = [each for each in model.opset_import if each.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _first_line(error: BaseException) -> str:
    """Return the reason behind what the exporter tells at length and in colours."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip()[:300]}" if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the exporter says: packages that it could use, its own calls that are deprecated, whole graphs."""
    levels = {logger: logger.level for logger in map(logging.getLogger, _TALKATIVE)}
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def _imported(package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        extra = _EXTRAS[package]
        raise MissingDependencyError(
            f"{package} is not installed, which a portable bundle needs; pip install 'gymtrain[{extra}]'"
        ) from error
