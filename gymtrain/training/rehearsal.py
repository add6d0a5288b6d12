"""What would fail in the middle of the first epoch, tried before it begins."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from gymtrain.data.batch import Batch
from gymtrain.errors import TrainingError
from gymtrain.models.torch_learner import TorchLearner
from gymtrain.models.torch_model import Loss, TorchModel, loss_of_batch
from gymtrain.training.batches import Batches
from gymtrain.training.evaluation import Evaluation


def rehearse(
    learner: TorchLearner,
    loss_of: Loss,
    batches: Batches,
    accumulate: int = 1,
    values: Mapping[str, float] = {},
    train_mode: Callable[[], object] | None = None,
) -> list[str]:
    """Try what would fail in the middle of the first epoch, and say what is wrong in words of the spec.

    Args:
        learner: The model and its task.
        loss_of: The loss.
        batches: The train part.
        accumulate: Batches in a step.
        values: Keywords of the model's own step.
        train_mode: Puts the module in training mode, where not all of it is to be.

    Returns:
        The names of the values that a training step gives: `"loss"`, and those of the model's own step.

    Raises:
        TrainingError: The module or the loss fails, or the last batch is too small for the module.
        TaskError: The module's outputs do not have the shape that the task needs.
    """
    if accumulate > 1 and any(isinstance(layer, _BatchNorm) for layer in learner.module.modules()):
        warnings.warn(
            f"model.training.accumulate: {type(learner.module).__name__} has batch norm, which sees batches of "
            f"{batches.batch_size} rows and not of {batches.batch_size * accumulate}",
            stacklevel=2,
        )
    two = batches.first(2)
    learner.check_outputs(two.inputs)
    names = ["loss"]
    if isinstance(learner.module, TorchModel):
        names += _try_own_step(learner, loss_of, two, values)
        learner.final_state()
    else:
        _try_loss(learner, loss_of, two)
    _try_one_row(learner.module, two.inputs[:1], batches, train_mode or learner.module.train)
    return names


def rehearse_evaluation(learner: TorchLearner, evaluation: Evaluation) -> list[str]:
    """Try the model's own step on two rows that it does not learn from.

    Returns:
        The names of the values that an evaluation gives.

    Raises:
        TrainingError: The step fails, or returns something else than outputs and numbers.
    """
    if not isinstance(learner.module, TorchModel):
        return ["loss", *evaluation.metrics.names]
    learner = learner.with_module(_copy_of(learner.module))
    step = "test_step" if evaluation.part == "test" else "validation_step"
    place = f"model.model: {step} of {type(learner.module).__name__}"
    try:
        with learner.evaluating(evaluation.loss_of):
            outputs, values = learner.outputs(evaluation.part, evaluation.first(2, learner.dtype))
    except Exception as error:
        raise TrainingError(f"{place} fails on two rows: {error}") from error
    shape = (min(2, len(evaluation.X)), learner.task.output_size)
    if outputs is not None and tuple(outputs.shape) != shape:
        raise TrainingError(f"{place} returned outputs of {_shown(outputs)} for two rows; expected shape {shape}")
    _check_numbers(values, place)
    return list(dict.fromkeys([*([] if outputs is None else ["loss", *evaluation.metrics.names]), *values]))


def _try_one_row(module: nn.Module, row: torch.Tensor, batches: Batches, train_mode: Callable[[], object]) -> None:
    rows = batches.num_rows
    if rows % batches.batch_size != 1 and batches.batch_size != 1:
        return
    train_mode()
    try:
        # In training mode a module may change its buffers.
        tried = copy.deepcopy(module)
    except Exception:
        return  # one that cannot be copied cannot be tried
    try:
        tried(row)
    except ValueError as error:
        raise TrainingError(
            f"model.training.batch_size: {batches.batch_size} leaves {rows} rows with a batch of one, which "
            f"{type(module).__name__} cannot train on ({error}); choose another batch_size"
        ) from error


def _try_loss(learner: TorchLearner, loss_of: Loss, batch: Batch) -> None:
    try:
        loss = loss_of_batch(learner.module, loss_of, batch)
    except Exception as error:
        raise TrainingError(f"model.training.loss: it fails on outputs and targets of two rows: {error}") from error
    if not isinstance(loss, torch.Tensor) or loss.shape != ():
        raise TrainingError(
            f"model.training.loss: it returned {_shown(loss)}; expected a tensor of shape (), the mean over rows"
        )
    if not loss.requires_grad:
        raise TrainingError(
            f"model.model: nothing can be learned, because the loss does not depend on the parameters of "
            f"{type(learner.module).__name__}; look for detach() or no_grad() in it or in the loss"
        )


def _try_own_step(learner: TorchLearner, loss_of: Loss, batch: Batch, values: Mapping[str, float]) -> list[str]:
    # On a copy: in training mode a module may change its buffers.
    module = _copy_of(learner.module).train()
    place = f"model.model: training_step of {type(module).__name__}"
    try:
        outcome = learner.with_module(module).make_step(loss_of, values)(batch)
    except Exception as error:
        raise TrainingError(f"{place} fails on two rows: {error}") from error
    losses = outcome if isinstance(outcome, Mapping) else {"loss": outcome}
    if not losses:
        raise TrainingError(f"{place} returned an empty dict; expected a loss in it, a tensor of shape ()")
    _check_numbers(losses, place)
    if not any(value.requires_grad for value in losses.values()):
        raise TrainingError(f"{place} returned nothing that depends on the parameters; look for detach() or no_grad()")
    return [name for name in losses if name != "loss"]


def _copy_of(module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module)
    except Exception as error:
        message = f"model.model: {type(module).__name__} cannot be copied by copy.deepcopy, to be tried: {error}"
        raise TrainingError(message) from error


def _check_numbers(values: Mapping[str, object], place: str) -> None:
    odd = [
        (name, value)
        for name, value in values.items()
        if not isinstance(name, str) or not isinstance(value, torch.Tensor) or value.shape != ()
    ]
    if odd:
        name, value = odd[0]
        raise TrainingError(f"{place} returned {_shown(value)} as {name!r}; expected tensors of shape () by name")


def _shown(value: object) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
