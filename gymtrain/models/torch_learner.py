"""A torch module and its task: built, run on rows, saved and restored."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from gymtrain.data.batch import Batch
from gymtrain.data.padding import ROWS_ALIKE, padded
from gymtrain.errors import BundleError, Fault, GymtrainError, SaveError, SpecError, TaskError, TrainingError, some
from gymtrain.models.contract import Array, Learner, LibraryLearner, State
from gymtrain.models.estimators import SklearnModel
from gymtrain.models.exact import AlignedRows, has_ready_layers, has_uneven_rows, in_pieces, rows_alike, survive_forks
from gymtrain.models.networks import is_ours
from gymtrain.models.seeding import seeded
from gymtrain.models.tasks import Task
from gymtrain.models.timm_networks import timm_network
from gymtrain.models.torch_model import Loss, Outcome, TorchModel, call_own, loss_of_batch
from gymtrain.specs.components import INJECTED, Component


class TorchLearner(Learner):
    """A torch module and its task.

    Args:
        module: Takes (rows, …) and returns raw outputs (rows, task.output_size).
        task: What is predicted.
        device: Where the module lies.
        dtype: The type of the rows that it takes.
    """

    def __init__(self, module: nn.Module, task: Task, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self.module, self.task, self.device, self.dtype = module, task, device, dtype

    def with_module(self, module: nn.Module) -> TorchLearner:
        """Return the same with another module."""
        return TorchLearner(module, self.task, self.device, self.dtype)

    @property
    def has_probabilities(self) -> bool:
        """Whether the task has classes."""
        return self.task.has_probabilities

    @property
    def threads(self) -> int:
        """How many blocks of rows are computed at once."""
        return torch.get_num_threads() if self.device.type == "cpu" and self._has_ready_layers else 1

    def scores(self, X: Array, *, exact: bool = True) -> Array:
        """Return what the task makes of the module's outputs, float32.

        Args:
            X: Rows, float32 of shape (rows, …), at least one.
            exact: Whether the bits of a row are to be the same whatever is computed beside it, which takes longer for
                a few rows; on the CPU alone. For a module with code of the user's, the number of threads still counts.
        """
        if self.module.training:
            self.module.eval()
        if self.device.type != "cpu":
            return self._scores(X)
        survive_forks()
        if not exact:
            return self._scores(X)
        return in_pieces(self._exact_scores, X) if self._has_ready_layers else self._exact_scores(X)

    @torch.inference_mode()
    def _scores(self, X: Array) -> Array:
        scores: Array = self.task.activate(self._raw(X)).cpu().numpy()
        return scores

    @torch.inference_mode()
    def _exact_scores(self, X: Array) -> Array:
        with AlignedRows() if self._has_uneven_rows else nullcontext():
            outputs = self._raw(padded(X, self._rows_alike))
        if not self.task.activates_alike:
            outputs = nn.functional.pad(outputs, (0, 0, 0, -len(outputs) % ROWS_ALIKE))
        scores: Array = self.task.activate(outputs)[: len(X)].numpy()
        return scores

    def _raw(self, X: Array) -> torch.Tensor:
        outputs: torch.Tensor = self.module(as_input(X).to(self.device, self.dtype)).float()
        return outputs

    @cached_property
    def _has_ready_layers(self) -> bool:
        return has_ready_layers(self.module)

    @cached_property
    def _has_uneven_rows(self) -> bool:
        return has_uneven_rows(self.module, self.dtype)

    @cached_property
    def _rows_alike(self) -> int:
        return rows_alike(self.module, self.dtype)

    def check_outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """Run a few rows through the module, and return what comes out once it was looked at.

        Raises:
            TrainingError: The module fails on the rows.
            TaskError: Its outputs do not have the shape that the task needs.
        """
        rows = len(inputs)
        name = type(self.module).__name__
        self.module.eval()
        try:
            with torch.no_grad():
                outputs = self.module(inputs)
        except Exception as error:
            message = f"model.model: {name} fails on rows of shape {tuple(inputs.shape[1:])}: {error}"
            raise TrainingError(message) from error
        expected = (rows, self.task.output_size)
        if not isinstance(outputs, torch.Tensor) or tuple(outputs.shape) != expected:
            got = (
                f"shape {tuple(outputs.shape)}" if isinstance(outputs, torch.Tensor) else f"a {type(outputs).__name__}"
            )
            raise TaskError(
                f"model.model: {name} returned {got} for {rows} rows; a {self.task.name} task needs raw outputs (no "
                f"softmax, no sigmoid) of shape {expected}{self._hint(outputs)}"
            )
        return outputs

    def _hint(self, outputs: Any) -> str:
        shape = tuple(getattr(outputs, "shape", ()))
        if self.task.name == "binary" and len(shape) == 2 and shape[1] == 2:
            return "; for two outputs, declare the dataset's task as 'multiclass'"
        if len(shape) == 1:
            return "; add .unsqueeze(1)"
        return "; take the argument output_size in the constructor, and it is given this number"

    def make_step(self, loss_of: Loss, values: Mapping[str, float]) -> Callable[[Batch], Outcome]:
        """Return what makes a loss of a batch: the module's own step where it has one.

        Args:
            loss_of: The loss of the spec.
            values: Keywords of the module's own step, which may change from step to step.
        """
        module = self.module
        if not isinstance(module, TorchModel):
            return lambda batch: loss_of_batch(module, loss_of, batch)
        _give_loss(module, loss_of)
        return lambda batch: module.training_step(batch, **values)

    @contextmanager
    def evaluating(self, loss_of: Loss | None) -> Iterator[None]:
        """While this is entered, the module is in evaluation mode, makes no graph, and has this loss in its steps."""
        module = self.module
        module.eval()
        before = getattr(module, "loss_of", None)
        with torch.inference_mode():
            try:
                if isinstance(module, TorchModel):
                    _give_loss(module, loss_of)
                yield
            finally:
                if isinstance(module, TorchModel):
                    _give_loss(module, before)

    def outputs(self, part: str, batch: Batch) -> tuple[torch.Tensor | None, dict[str, torch.Tensor]]:
        """Return raw outputs for rows that are not learned from, float32, and what else the module's own step gives."""
        module = self.module
        if not isinstance(module, TorchModel):
            return module(batch.inputs).float(), {}
        outcome = (module.test_step if part == "test" else module.validation_step)(batch)
        if isinstance(outcome, torch.Tensor):
            return outcome.float(), {}
        noted = dict(outcome)
        outputs = noted.pop("outputs", None)
        return None if outputs is None else outputs.float(), noted

    def final_state(self) -> dict[str, Any]:
        """Return the tensors that a prediction needs, as the module has them.

        Raises:
            TrainingError: The module names others than its state dict has.
        """
        module = self.module
        state = module.state_dict()
        if not isinstance(module, TorchModel):
            return state
        final: dict[str, Any] = call_own(module, "final_state")
        if not isinstance(final, Mapping):
            raise TrainingError(
                f"model.model: final_state of {type(module).__name__} returned a {type(final).__name__}; expected a "
                f"dict of tensors of the state dict"
            )
        odd = [name for name, value in final.items() if name not in state or not _are_alike(value, state[name])]
        if odd:
            raise TrainingError(
                f"model.model: final_state of {type(module).__name__} returned {some(odd)}, which the state dict does "
                f"not have, or in another shape or type; return some of its items as they are"
            )
        return final

    def save(self) -> State:
        """Return the tensors of the module that a prediction needs, on the CPU.

        Raises:
            SaveError: The module keeps something else in its state dict.
        """
        state = self.final_state()
        odd = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
        if odd:
            raise SaveError(f"model.model: {some(odd)} of the state dict is no tensor; keep it in a buffer")
        return {name: tensor.detach().cpu() for name, tensor in state.items()}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put tensors in the place of the module's own, without copying them.

        Raises:
            BundleError: Names, shapes or types are not those of the module.
        """
        own = self.final_state()
        missing, extra = sorted(set(own) - set(state)), sorted(set(state) - set(own))
        if missing or extra:
            raise BundleError(
                f"weights.safetensors: the model has {some(missing) or 'no tensor'} that the file lacks, and lacks "
                f"{some(extra) or 'no tensor'} that the file has",
                reason="weights_names",
            )
        for name, tensor in state.items():
            if own[name].shape != tensor.shape or own[name].dtype != tensor.dtype:
                raise BundleError(
                    f"weights.safetensors: {name!r} is {tensor.dtype} of shape {tuple(tensor.shape)}; the model has "
                    f"{own[name].dtype} of shape {tuple(own[name].shape)}",
                    reason="weights_dtype" if own[name].shape == tensor.shape else "weights_shape",
                )
        self.module.load_state_dict(state, assign=True, strict=False)  # the names were compared above
        parameters = dict(self.module.named_parameters(remove_duplicate=False))
        for name, original in _same(state).items():
            if name in parameters and original in parameters:
                # Assigning gave each name a parameter of its own; they are one again, as training left them.
                owner, _, own_name = name.rpartition(".")
                setattr(self.module.get_submodule(owner), own_name, parameters[original])
        self.module.to(self.device).eval()


def _give_loss(module: TorchModel, loss_of: Loss | None) -> None:
    # Not through nn.Module's own assignment, which would make a loss with weights a part of the model.
    object.__setattr__(module, "loss_of", loss_of)


def _are_alike(one: Any, other: Any) -> bool:
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return type(one) is type(other)
    return one.shape == other.shape and one.dtype == other.dtype


def _same(state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Return the names of tensors that are others under a second name, with the first name of each."""
    first: dict[tuple[Any, ...], str] = {}
    places = {
        name: (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        for name, tensor in state.items()
        if tensor.numel()
    }
    return {name: first[place] for name, place in places.items() if first.setdefault(place, name) != name}


def as_input(X: Array) -> torch.Tensor:
    """Return rows as a float32 tensor, sharing memory where that is possible."""
    X = np.ascontiguousarray(X, dtype=np.float32)
    return torch.from_numpy(X if X.flags.writeable else X.copy())


def build_learner(
    component: Component,
    task: Task,
    input_shape: tuple[int, ...],
    *,
    seed: int = 0,
    device: str = "auto",
    dtype: torch.dtype | None = None,
) -> Learner:
    """Make a model for the data: a torch module, or a model of another library.

    Args:
        component: The model of the spec.
        task: What is predicted.
        input_shape: The shape of one row, as it comes out of the preprocessors.
        seed: Decides the first weights.
        device: `"auto"` or a device of torch.
        dtype: What all weights of a torch module are brought to; None where each keeps its own type.

    Raises:
        TrainingError: The constructor fails, or what it makes does not fit the task.
    """
    with seeded(seed):
        model = _build(component, task, input_shape)
    if isinstance(model, nn.Module):
        place = choose_device(device)
        return TorchLearner(model.to(place, dtype), task, place, dtype or torch.float32)
    if isinstance(model, SklearnModel):
        model.check_task(task)
    return LibraryLearner(model, task)


def restore_learner(
    component: Component,
    task: Task,
    input_shape: tuple[int, ...],
    state: State,
    *,
    seed: int = 0,
    device: str = "auto",
    dtype: torch.dtype | None = None,
) -> Learner:
    """Make a model and give it what it had learned.

    Args:
        component: The model of the spec.
        task: What is predicted.
        input_shape: The shape of one row, as it comes out of the preprocessors.
        state: What `Learner.save` returned.
        seed: The one that the model was built with: tensors that are not part of the state come from the constructor.
        device: `"auto"` or a device of torch; the CPU where that is not there.
        dtype: What all weights of a torch module were brought to; None where each kept its own type.

    Raises:
        BundleError: The state is not one of this model.
        TrainingError: The constructor fails.
    """
    component = without_pretraining(component)
    # All tensors of our networks are in the state: nothing needs to be initialised that would be thrown away.
    with torch.device("meta") if is_ours(component.target) else seeded(seed, alone=False):
        model = _build(component, task, input_shape)
    if isinstance(model, nn.Module):
        learner: Learner = TorchLearner(model.to(dtype), task, _place(device), dtype or torch.float32)
    else:
        learner = LibraryLearner(model, task)
    learner.restore(state)
    return learner


def without_pretraining(component: Component) -> Component:
    """Return the model of a spec without the weights that its constructor would download: it is given its own."""
    if not component.arguments.get("pretrained") or component.target is not timm_network:
        return component
    return replace(component, arguments={**component.arguments, "pretrained": False})


def _build(component: Component, task: Task, input_shape: tuple[int, ...]) -> Any:
    facts = {"input_shape": input_shape, "output_size": task.output_size}
    target: Any = component.target
    for name in sorted(INJECTED["model"] & set(component.arguments)):
        given, fact = component.arguments[name], facts[name]
        if (tuple(given) if isinstance(given, list) else given) != fact:
            raise SpecError([Fault(f"model.model.{name}", f"got {given!r}; the data needs {fact!r}; leave it out")])
    wanted = set(inspect.signature(target).parameters) & INJECTED["model"] - set(component.arguments)
    try:
        model = component.build(**{name: facts[name] for name in sorted(wanted)})
    except GymtrainError:
        raise
    except Exception as error:
        raise TrainingError(f"model.model ({component.type}): the constructor failed: {error}") from error
    if isinstance(model, nn.Module):
        if isinstance(model, TorchModel):
            model.task = task
            call_own(model, "setup", task)
        if any(is_lazy(tensor) for tensor in [*model.parameters(), *model.buffers()]):
            # Lazy layers take their shapes, and draw their first weights, when they see a row.
            TorchLearner(model, task, torch.device("cpu")).check_outputs(torch.zeros(1, *input_shape))
    elif not all(hasattr(model, name) for name in ("fit", "predict", "save", "restore")):
        raise TrainingError(
            f"model.model ({component.type}): got a {type(model).__name__}; expected a torch.nn.Module, or an object "
            f"with fit, predict, save and restore (gymtrain.models.contract.Model)"
        )
    return model


def _place(device: str) -> torch.device:
    """Return the device that a model was trained on, so that it predicts the same bits; elsewhere the CPU."""
    try:
        return choose_device(device)
    except TrainingError:
        warnings.warn(f"the model was trained on {device!r}, which is not there; it predicts on the CPU", stacklevel=2)
        return torch.device("cpu")


def choose_device(name: str) -> torch.device:
    """Return the device of a spec: `"auto"` is cuda, then mps, then cpu.

    Raises:
        TrainingError: The device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}.get(device.type, True)
    if not there or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise TrainingError(f"model.training.device: {name!r} is not there on this machine; use 'auto' or 'cpu'")
    return device
