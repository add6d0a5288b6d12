"""A predictor as a bundle, and back."""

from __future__ import annotations

import datetime
import json
import math
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from gymtrain.bundle import (
    Bundle,
    Contents,
    Readable,
    SignedBy,
    State,
    Tensor,
    Verification,
    Verify,
    Writable,
    from_numpy,
    name_of,
    open_bundle,
    strict_json,
    to_numpy,
    write,
)
from gymtrain.data.frames import Frame
from gymtrain.data.images import Images
from gymtrain.data.schema import Features
from gymtrain.errors import BundleError, MissingDependencyError, SaveError, SpecError, some
from gymtrain.hardware import library_versions
from gymtrain.models.contract import Learner
from gymtrain.models.onnx_learner import OnnxLearner
from gymtrain.models.torch_learner import TorchLearner, restore_learner
from gymtrain.specs import Experiment
from gymtrain.specs.components import Absent
from gymtrain.trainer.model_card import model_card
from gymtrain.trainer.own_classes import Types, check_findable, sources_of, with_all_that_is_missing
from gymtrain.trainer.portable import exported
from gymtrain.trainer.predictor import Predictor
from gymtrain.trainer.preparation import build_pipeline
from gymtrain.trainer.reducing import REDUCED, change
from gymtrain.trainer.results_file import check_results
from gymtrain.trainer.schema_file import read_schema
from gymtrain.trainer.soundness import check_preprocessors, check_weights, non_finite_weights
from gymtrain.trainer.storage import Stored, reduced_to, restored, rounded_to, stored
from gymtrain.trainer.tensors import tensor_of
from gymtrain.trainer.versions import warn_of_versions
from gymtrain.training.freezing import freeze_what_is_known
from gymtrain.training.precision import parameter_dtype

Array = npt.NDArray[Any]
Copied = Callable[[str, torch.Tensor], torch.Tensor]

LIBRARIES = ("gymtrain", "torch", "numpy", "scikit-learn", "skops")

# How many raw rows a bundle holds, with the outputs that they gave.
SELFCHECK_ROWS = 8


def save(
    path: Writable,
    experiment: Experiment,
    spec: dict[str, Any],
    predictor: Predictor,
    result: Mapping[str, Any],
    *,
    dtype: str | None = None,
    portable: bool = False,
    include_source: bool = False,
    sign: Callable[[bytes], bytes] | None = None,
) -> None:
    """Write a bundle.

    Args:
        path: Where to: a path, an address or a file object; an existing file is replaced once the new one is whole.
        experiment: The spec.
        spec: The same, written out.
        predictor: What was learned.
        result: What `train()` returned.
        dtype: In how few bytes weights are written, one of `REDUCED`; None for as many as they have.
        portable: Whether the model is put in as ONNX too, which predicts without its class.
        include_source: Whether the source of the user's own classes is put in, for people to read.
        sign: Makes a signature of the manifest; None for a bundle that is not signed.

    Raises:
        SaveError: A component could not be found again by the process that loads the bundle, or the weights cannot be
            written so.
        OSError: The file cannot be written.
    """
    if isinstance(predictor.learner, OnnxLearner):
        raise SaveError("this trainer predicts through model.onnx, without the class of its model; copy its file")
    check_findable(experiment)
    if bad := non_finite_weights(predictor.learner):
        raise SaveError(f"the weights {some(bad)} hold NaN or infinity: the model has no answers; train it anew")
    _check_final_state(experiment, predictor)
    weights = None
    if dtype is not None:
        weights, predictor = _reduced(experiment, predictor, dtype)
    onnx = None
    if portable:
        onnx, weights = _portable(experiment, predictor, weights)
    contents = contents_of(spec, predictor, result, weights=weights)
    sources = sources_of(experiment) if include_source else {}
    write(path, replace(contents, onnx=onnx, sources=sources), sign=sign)


def _portable(experiment: Experiment, predictor: Predictor, weights: Stored | None) -> tuple[bytes, Stored]:
    """Return the model as ONNX, made of what a bundle holds of it, and its weights with what is said of both."""
    learner = predictor.learner
    if not isinstance(learner, TorchLearner):
        raise SaveError(f"portable: {experiment.model.model.type!r} is no torch module; save without portable")
    on_cpu = _again(experiment, predictor, learner.save(), device="cpu")
    assert isinstance(on_cpu, TorchLearner)
    onnx, told = exported(on_cpu, replace(predictor, learner=on_cpu))
    weights = weights or stored(learner)
    return onnx, weights._replace(said={**weights.said, "portable": told})


def _reduced(experiment: Experiment, predictor: Predictor, dtype: str) -> tuple[Stored, Predictor]:
    """Return weights in fewer bytes, and a predictor that has them as who loads the bundle will."""
    if not isinstance(dtype, str) or dtype not in REDUCED:
        raise SaveError(f"dtype: got {dtype!r}; expected one of {', '.join(map(repr, REDUCED))}, or None")
    if not isinstance(predictor.learner, TorchLearner):
        raise SaveError(f"dtype: {experiment.model.model.type!r} is no torch module; leave dtype out")
    weights = stored(predictor.learner, dtype)
    after = replace(predictor, learner=_again(experiment, predictor, weights.state))
    weights.said["reduced"]["change"] = json_safe(change(predictor, after, experiment.model.training))
    return weights, after


def _again(
    experiment: Experiment,
    predictor: Predictor,
    state: Mapping[str, Any],
    *,
    seed: int = 0,
    device: str | None = None,
) -> Learner:
    """Return the model made anew, as in another process.

    Args:
        experiment: The spec.
        predictor: That has it.
        state: What it is to have learned.
        seed: Is added to that of the spec.
        device: Where it lies; None for where the spec says.
    """
    training = experiment.model.training
    return restore_learner(
        experiment.model.model,
        predictor.task,
        predictor.input_shape,
        dict(state),
        seed=training.seed + seed,
        device=device or training.device,
        dtype=parameter_dtype(training.precision),
    )


def _check_final_state(experiment: Experiment, predictor: Predictor) -> None:
    """See whether a module that leaves a part of itself out can predict without it.

    Raises:
        SaveError: It cannot: with other first weights, what is left gives other outputs.
    """
    learner = predictor.learner
    if not isinstance(learner, TorchLearner) or predictor.examples is None or not len(predictor.examples):
        return
    if learner.final_state().keys() == learner.module.state_dict().keys():
        return
    again = _again(experiment, predictor, learner.save(), seed=1)
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
    weights: Stored | None = None,
) -> Contents:
    """Return what goes into a bundle.

    Args:
        spec: The spec, written out.
        predictor: What was learned.
        result: What `train()` returned.
        training: Where the training stands, as JSON and tensors, which makes the bundle a checkpoint.
        copied: Copies a tensor, by a name of its own, where what is written has to stay as it is now.
        weights: What is written of a torch module; None for its tensors as they are.

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
        readme=model_card(spec, schema, json_safe(dict(result))),
        which_weights=predictor.weights,
        versions={name: version for name, version in library_versions().items() if name in LIBRARIES},
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        preprocessors=[
            _state(name, step.save() if hasattr(step, "save") else {}) for name, step in predictor.pipeline.steps
        ],
        training=state,
        **_model_members(predictor, copied, weights),
    )


class Loaded(NamedTuple):
    """What a bundle holds, made into objects.

    Args:
        experiment: The spec.
        predictor: What was learned.
        result: What `train()` returned.
        verification: Waits until the weights are verified; None where they are, or shall not be.
    """

    experiment: Experiment
    predictor: Predictor
    result: dict[str, Any]
    verification: Verification | None


def load(
    path: Readable,
    trust: Collection[str],
    types: Types = {},
    *,
    sha256: str | None = None,
    signed_by: SignedBy | None = None,
    verify: Verify = "eager",
) -> Loaded:
    """Read a bundle.

    Args:
        path: Its path or address, its bytes or a file object.
        trust: Types outside gymtrain that the bundle may name: `"package.module:Class"`.
        types: What stands behind names in the bundle.
        sha256: The digest that the whole file must have.
        signed_by: The public keys one of which must have signed it; None to take it whoever did, or nobody.
        verify: When the weights are verified, as `gymtrain.bundle.open_bundle` takes it.

    Raises:
        BundleError: The file is no bundle, was changed, or names a type that is not trusted.
        FileNotFoundError: There is no such file.
        MissingDependencyError: It predicts through ONNX here, and onnxruntime is not installed.
    """
    name = name_of(path)
    with open_bundle(path, sha256=sha256, signed_by=signed_by, verify=verify) as bundle:
        try:
            check_results(bundle.results)
            experiment = _experiment(bundle, trust, types, name)
            predictor = _predictor(bundle, experiment, trust)
            _check_weights(predictor.learner, verify, bundle.verification)
        except BundleError as error:
            missing = error.reason == "unknown_type"
            told = str(with_all_that_is_missing(error, bundle, trust, types, name) if missing else error)
            message = told if told.startswith(name) else f"{name}: {told}"
            raise BundleError(message, reason=error.reason) from error
        except (OSError, MemoryError, MissingDependencyError):
            raise
        except Exception as error:
            message = f"{name}: the members do not fit together: {type(error).__name__}: {error}"
            raise BundleError(message, reason="inconsistent") from error
        absent = experiment.model.model.target
        if isinstance(absent, Absent):
            message = f"{name}: predicts through model.onnx, in onnxruntime, and cannot train: {absent.reason}"
            warnings.warn(message, stacklevel=3)
        has_fitted = any(name.endswith(".skops") for name in bundle.manifest["members"])
        warn_of_versions(name, bundle.manifest["versions"], has_fitted=has_fitted)
        return Loaded(experiment, predictor, bundle.results, bundle.verification)


def _check_weights(learner: Learner, verify: Verify, digests: Verification | None) -> None:
    """Look whether the weights are numbers: when their digest is looked at, because both read all of them."""
    if digests is not None:
        digests.also(lambda: check_weights(learner))
    elif verify:
        for _ in check_weights(learner):
            pass


def _experiment(bundle: Bundle, trust: Collection[str], types: Types, path: str) -> Experiment:
    try:
        with Experiment.reading_a_file(trust, types, needs_model=not bundle.has_onnx):
            return Experiment(**bundle.spec)
    except SpecError as error:
        unknown = any(fault.path.endswith("type") for fault in error.faults)
        raise BundleError(f"{path}: spec.json: {error}", reason="unknown_type" if unknown else "spec") from error
    except TypeError as error:
        raise BundleError(f"{path}: spec.json: {error}", reason="spec") from error


def _predictor(bundle: Bundle, experiment: Experiment, trust: Collection[str]) -> Predictor:
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
    training, target = experiment.model.training, experiment.model.model.target
    if isinstance(target, Absent):
        learner: Learner = OnnxLearner(bundle.onnx(), task)
    else:
        learner = restore_learner(
            experiment.model.model,
            task,
            input_shape,
            _model_state(bundle, trust),
            seed=training.seed,
            device=training.device,
            dtype=parameter_dtype(training.precision),
        )
        if isinstance(learner, TorchLearner) and training.unfreeze_at_epoch is None:
            freeze_what_is_known(learner.module, training.freeze)
    examples = _selfcheck_rows(bundle, features)
    expected = bundle.selfcheck().get("scores")
    scores = None if expected is None else to_numpy(expected).copy()
    which = bundle.manifest["weights"]
    predictor = Predictor(
        features,
        pipeline,
        learner,
        input_shape,
        which,
        examples,
        expected=scores,
        reduced=reduced_to(bundle),
        rounded=rounded_to(bundle),
    )
    check_preprocessors(predictor, states)
    return predictor


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


def _restored(state: State, trust: Collection[str]) -> dict[str, Any]:
    # Copies: a preprocessor is small, and outlives the map of the file.
    arrays = {key: to_numpy(tensor).copy() for key, tensor in state.tensors.items()}
    skops = {} if state.skops is None else {"skops": state.skops, "trust": list(trust)}
    return {**state.values["state"], **arrays, **skops}


def _model_members(predictor: Predictor, copied: Copied, weights: Stored | None) -> dict[str, Any]:
    learner = predictor.learner
    if isinstance(learner, TorchLearner):
        tensors, said = weights or stored(learner)
        written = {name: tensor_of(copied(f"weights/{name}", tensor)) for name, tensor in tensors.items()}
        before = [*predictor.rounded, *([] if predictor.reduced is None else [predictor.reduced])]
        if before:
            said = {**said, "rounded": before}
        return {"weights": written, "storage": said or None}
    state = _state("model", learner.save())
    return {"weights": state.tensors or None, "model_skops": state.skops, "model_state": state.values["state"]}


def _model_state(bundle: Bundle, trust: Collection[str]) -> dict[str, Any]:
    values = bundle.model_state()
    if values is None:  # a torch module: it has nothing but tensors
        return dict(restored(bundle))
    return _restored(State({"state": values}, bundle.weights() or {}, bundle.model_skops()), trust)


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
    elif isinstance(rows, Images):
        return {"scores": from_numpy(np.ascontiguousarray(scores))} | {
            f"image.{row}": from_numpy(np.frombuffer(rows.encoded(row), dtype=np.uint8)) for row in range(len(rows))
        }
    else:
        inputs = np.ascontiguousarray(rows)
    return {"rows": from_numpy(inputs), "scores": from_numpy(np.ascontiguousarray(scores))}


def _selfcheck_rows(bundle: Bundle, features: Features) -> Frame | Images | Array | None:
    tensors = bundle.selfcheck()
    if features.are_images:
        names = sorted((name for name in tensors if name.startswith("image.")), key=lambda name: (len(name), name))
        if len(names) > SELFCHECK_ROWS:
            raise BundleError(
                f"selfcheck.safetensors: holds {len(names)} images; expected at most {SELFCHECK_ROWS}",
                reason="too_large",
            )
        files = [to_numpy(tensors[name]).tobytes() for name in names]
        return Images(files, max_pixels=features.max_pixels) if files else None
    tensor = tensors.get("rows")
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
