"""A predictor as a bundle, and back."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gymtrain.bundle import Bundle, Contents, State, Tensor, from_numpy, open_bundle, strict_json, to_numpy, write
from gymtrain.data.frames import Frame
from gymtrain.data.schema import Features
from gymtrain.errors import BundleError, Fault, SaveError, SpecError, some
from gymtrain.hardware import library_versions
from gymtrain.models.torch_learner import TorchLearner, restore_learner
from gymtrain.specs import Component, Experiment
from gymtrain.trainer.model_card import model_card
from gymtrain.trainer.predictor import Predictor
from gymtrain.trainer.preparation import build_pipeline
from gymtrain.trainer.schema_file import read_schema
from gymtrain.trainer.soundness import check_preprocessors, check_weights, non_finite_weights
from gymtrain.training.precision import parameter_dtype

Array = npt.NDArray[Any]
Copied = Callable[[str, torch.Tensor], torch.Tensor]

# What safetensors calls the types of torch.
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.complex64: "C64",
    torch.bool: "BOOL",
}
TORCH_DTYPES = {name: dtype for dtype, name in DTYPES.items()}
LIBRARIES = ("gymtrain", "torch", "numpy", "scikit-learn", "skops")


def save(
    path: str | Path, experiment: Experiment, spec: dict[str, Any], predictor: Predictor, result: Mapping[str, Any]
) -> None:
    """Write a bundle.

    Args:
        path: Where to; an existing file is replaced once the new one is whole.
        experiment: The spec.
        spec: The same, written out.
        predictor: What was learned.
        result: What `train()` returned.

    Raises:
        SaveError: A component could not be found again by the process that loads the bundle.
        OSError: The file cannot be written.
    """
    check_findable(experiment)
    if bad := non_finite_weights(predictor.learner):
        raise SaveError(f"the weights {some(bad)} hold NaN or infinity: the model has no answers; train it anew")
    _check_final_state(experiment, predictor)
    write(path, contents_of(spec, predictor, result))


def _check_final_state(experiment: Experiment, predictor: Predictor) -> None:
    """See whether a module that leaves a part of itself out can predict without it.

    Raises:
        SaveError: It cannot: with other first weights, what is left gives other outputs.
    """
    learner, training = predictor.learner, experiment.model.training
    if not isinstance(learner, TorchLearner) or predictor.examples is None or not len(predictor.examples):
        return
    if learner.final_state().keys() == learner.module.state_dict().keys():
        return
    again = restore_learner(
        experiment.model.model,
        predictor.task,
        predictor.input_shape,
        learner.save(),
        seed=training.seed + 1,
        device=training.device,
        dtype=parameter_dtype(training.precision),
    )
    one, other = predictor.scores(predictor.examples), replace(predictor, learner=again).scores(predictor.examples)
    if one.tobytes() != other.tobytes():
        raise SaveError(
            f"model.model: final_state of {type(learner.module).__name__} leaves out weights that a prediction needs: "
            f"without them the loaded model would predict otherwise"
        )


def contents_of(
    spec: dict[str, Any],
    predictor: Predictor,
    result: Mapping[str, Any],
    training: tuple[Any, dict[str, torch.Tensor]] | None = None,
    copied: Copied = lambda name, tensor: tensor,
) -> Contents:
    """Return what goes into a bundle.

    Args:
        spec: The spec, written out.
        predictor: What was learned.
        result: What `train()` returned.
        training: Where the training stands, as JSON and tensors, which makes the bundle a checkpoint.
        copied: Copies a tensor, by a name of its own, where what is written has to stay as it is now.

    Raises:
        SaveError: Something cannot be written.
    """
    task = predictor.task.to_dict()
    schema = {"features": predictor.features.to_dict(), "input_shape": list(predictor.input_shape), "labels": task}
    state = None
    if training is not None:
        tree, tensors = training
        state = State(tree, {name: tensor_of(copied(f"training/{name}", tensor)) for name, tensor in tensors.items()})
    return Contents(
        spec=spec,
        schema=schema,
        results=json_safe(dict(result)),
        selfcheck=_selfcheck(predictor),
        readme=model_card(spec, task, json_safe(dict(result)), None),
        which_weights=predictor.weights,
        versions={name: version for name, version in library_versions().items() if name in LIBRARIES},
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        preprocessors=[
            _state(name, step.save() if hasattr(step, "save") else {}) for name, step in predictor.pipeline.steps
        ],
        training=state,
        **_model_members(predictor, copied),
    )


def load(path: str | Path, trust: Sequence[str]) -> tuple[Experiment, Predictor, dict[str, Any]]:
    """Read a bundle.

    Args:
        path: The file.
        trust: Types outside gymtrain that the bundle may name: `"package.module:Class"`.

    Returns:
        The spec, what was learned, and what `train()` returned.

    Raises:
        BundleError: The file is no bundle, was changed, or names a type that is not trusted.
        FileNotFoundError: There is no such file.
    """
    with open_bundle(path) as bundle:
        experiment = _experiment(bundle, trust, path)
        try:
            predictor = _predictor(bundle, experiment, trust)
        except BundleError as error:
            message = str(error) if str(error).startswith(str(path)) else f"{path}: {error}"
            raise BundleError(message, reason=error.reason) from error
        except (OSError, MemoryError):
            raise
        except Exception as error:
            message = f"{path}: the members do not fit together: {type(error).__name__}: {error}"
            raise BundleError(message, reason="inconsistent") from error
        return experiment, predictor, bundle.results


def _experiment(bundle: Bundle, trust: Sequence[str], path: str | Path) -> Experiment:
    try:
        with Experiment.reading_a_file(trust):
            return Experiment(**bundle.spec)
    except SpecError as error:
        unknown = any(fault.path.endswith("type") for fault in error.faults)
        raise BundleError(f"{path}: spec.json: {error}", reason="unknown_type" if unknown else "spec") from error
    except TypeError as error:
        raise BundleError(f"{path}: spec.json: {error}", reason="spec") from error


def _predictor(bundle: Bundle, experiment: Experiment, trust: Sequence[str]) -> Predictor:
    features, input_shape, task = read_schema(bundle.schema)
    pipeline = build_pipeline(experiment.dataset, features)
    states = bundle.preprocessors()
    if len(states) != len(pipeline.steps):
        raise BundleError(
            f"the spec names {len(pipeline.steps)} preprocessors and the bundle holds {len(states)}",
            reason="inconsistent",
        )
    for (_, step), state in zip(pipeline.steps, states, strict=True):
        if hasattr(step, "restore"):
            step.restore(_restored(state, trust))
    training = experiment.model.training
    learner = restore_learner(
        experiment.model.model,
        task,
        input_shape,
        _model_state(bundle, trust),
        seed=training.seed,
        device=training.device,
        dtype=parameter_dtype(training.precision),
    )
    check_weights(learner)
    examples = _selfcheck_rows(bundle, features)
    predictor = Predictor(features, pipeline, learner, input_shape, bundle.manifest["weights"], examples)
    check_preprocessors(predictor, states)
    return predictor


def check_findable(experiment: Experiment) -> None:
    """Look whether another process would find what the spec names.

    Raises:
        SaveError: A class of the user's is defined where no other process looks.
    """
    dataset, model = experiment.dataset, experiment.model
    components = {
        "dataset.dataset": dataset.dataset,
        "model.model": model.model,
        "model.training.loss": model.training.loss,
    }
    lists = {
        "dataset.preprocessors": [] if dataset.preprocessors == "auto" else dataset.preprocessors,
        "dataset.data_augmentors": dataset.data_augmentors,
        "tracking.trackers": experiment.tracking.trackers,
    }
    for place, each in lists.items():
        components |= {f"{place}[{position}]": component for position, component in enumerate(each)}
    faults = [_unfindable(place, component) for place, component in components.items()]
    found = [str(fault) for fault in faults if fault is not None]
    if found:
        raise SaveError("this trainer could not be loaded by another process:\n  " + "\n  ".join(found))


def _unfindable(place: str, component: Component | str) -> Fault | None:
    if isinstance(component, str) or not component.type.startswith("__main__:"):
        return None
    return Fault(
        place,
        f"{component.type!r} is defined in the script or notebook that runs, where no other process finds it; put the "
        f"class in a module that can be imported, or give it a name with @gymtrain.register and register it there too",
    )


def _state(name: str, content: Mapping[str, Any]) -> State:
    """Sort what a component saved by how it is stored."""
    arrays = {key: value for key, value in content.items() if isinstance(value, np.ndarray)}
    values = {key: value for key, value in content.items() if key not in arrays and key != "skops"}
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SaveError(
            f"{name}: save() returned something that is neither a JSON value, a numpy array nor bytes under 'skops': "
            f"{error}"
        ) from error
    return State(
        values={"type": name, "state": values},
        tensors={key: from_numpy(np.ascontiguousarray(value).reshape(value.shape)) for key, value in arrays.items()},
        skops=content.get("skops"),
    )


def _restored(state: State, trust: Sequence[str]) -> dict[str, Any]:
    # Copies: a preprocessor is small, and outlives the map of the file.
    arrays = {key: to_numpy(tensor).copy() for key, tensor in state.tensors.items()}
    skops = {} if state.skops is None else {"skops": state.skops, "trust": list(trust)}
    return {**state.values["state"], **arrays, **skops}


def _model_members(predictor: Predictor, copied: Copied) -> dict[str, Any]:
    learner = predictor.learner
    if isinstance(learner, TorchLearner):
        return {
            "weights": {name: tensor_of(copied(f"weights/{name}", tensor)) for name, tensor in learner.save().items()}
        }
    state = _state("model", learner.save())
    return {"weights": state.tensors or None, "model_skops": state.skops, "model_state": state.values["state"]}


def _model_state(bundle: Bundle, trust: Sequence[str]) -> dict[str, Any]:
    weights, values = bundle.weights() or {}, bundle.model_state()
    if values is None:  # a torch module: it has nothing but tensors
        return {name: torch_tensor(tensor) for name, tensor in weights.items()}
    return _restored(State({"state": values}, weights, bundle.model_skops()), trust)


def tensor_of(tensor: torch.Tensor) -> Tensor:
    """Return a tensor of torch as a bundle holds it; its memory is shared, not copied."""
    if tensor.dtype not in DTYPES:
        raise SaveError(f"the model has a tensor of type {tensor.dtype}, which safetensors cannot hold")
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return Tensor(DTYPES[tensor.dtype], tuple(tensor.shape), flat.numpy().data)


def torch_tensor(tensor: Tensor) -> torch.Tensor:
    """Return a tensor of a bundle as torch has it; its memory is the map of the file, copied where it is written to."""
    dtype = TORCH_DTYPES[tensor.dtype]
    if 0 in tensor.shape:
        return torch.empty(tensor.shape, dtype=dtype)
    return torch.frombuffer(tensor.data, dtype=dtype).reshape(tensor.shape)


def _selfcheck(predictor: Predictor) -> dict[str, Tensor]:
    rows = predictor.examples
    if rows is None or len(rows) == 0:
        return {}
    scores = predictor.scores(rows)
    if isinstance(rows, Frame):
        columns = {
            name: [None if item != item else item for item in column.tolist()] for name, column in rows.columns.items()
        }
        inputs = np.frombuffer(json.dumps(columns, ensure_ascii=False).encode(), dtype=np.uint8)
    else:
        inputs = np.ascontiguousarray(rows)
    return {"rows": from_numpy(inputs), "scores": from_numpy(np.ascontiguousarray(scores))}


def _selfcheck_rows(bundle: Bundle, features: Features) -> Frame | Array | None:
    tensor = bundle.selfcheck().get("rows")
    if tensor is None:
        return None
    rows = to_numpy(tensor).copy()
    kinds = features.columns
    if kinds is None:
        return rows
    columns = strict_json.loads(rows.tobytes(), "selfcheck.safetensors: rows")
    typed = {
        name: np.array(columns[name], dtype=object if kind == "text" else np.float64) for name, kind in kinds.items()
    }
    return Frame(typed, len(next(iter(typed.values()))))


def json_safe(value: Any) -> Any:
    """Return what strict JSON can hold: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
