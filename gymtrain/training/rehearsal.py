"""What would fail in the middle of the first epoch, tried before it begins."""

from __future__ import annotations

import copy
import warnings

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from gymtrain.errors import TrainingError
from gymtrain.models.torch_learner import TorchLearner
from gymtrain.training.batches import Batches
from gymtrain.training.loop import Loss


def rehearse(learner: TorchLearner, loss_of: Loss, batches: Batches, accumulate: int = 1) -> None:
    """Try what would fail in the middle of the first epoch, and say what is wrong in words of the spec.

    Args:
        learner: The model and its task.
        loss_of: The loss.
        batches: The train part.
        accumulate: Batches in a step.

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
    inputs, targets = (rows[:2].to(learner.device) for rows in (batches.inputs, batches.targets))
    learner.check_outputs(inputs)
    try:
        loss = loss_of(learner.module(inputs), targets)
    except Exception as error:
        raise TrainingError(f"model.training.loss: it fails on outputs and targets of two rows: {error}") from error
    if not isinstance(loss, torch.Tensor) or loss.shape != ():
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else f"a {type(loss).__name__}"
        raise TrainingError(
            f"model.training.loss: it returned {got}; expected a tensor of shape (), the mean over rows"
        )
    if not loss.requires_grad:
        raise TrainingError(
            f"model.model: nothing can be learned, because the loss does not depend on the parameters of "
            f"{type(learner.module).__name__}; look for detach() or no_grad() in it or in the loss"
        )
    if len(batches.inputs) % batches.batch_size != 1 and batches.batch_size != 1:
        return
    try:
        # On a copy: in training mode a module may change its buffers.
        copy.deepcopy(learner.module).train()(inputs[:1])
    except ValueError as error:
        raise TrainingError(
            f"model.training.batch_size: {batches.batch_size} leaves {len(batches.inputs)} rows with a batch of one, "
            f"which {type(learner.module).__name__} cannot train on ({error}); choose another batch_size"
        ) from error
