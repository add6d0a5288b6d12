"""The contract of a torch module that says itself how it learns."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gymtrain.data.batch import Batch
from gymtrain.errors import GymtrainError, TrainingError, did_you_mean
from gymtrain.models.tasks import Task

if TYPE_CHECKING:
    from torch.optim import Optimizer

Loss = Callable[..., torch.Tensor]
Outcome = torch.Tensor | Mapping[str, torch.Tensor]


class TorchModel(nn.Module):
    """Base for torch modules that say themselves how they learn; an ordinary `nn.Module` learns without any of it.

    Override what is to be different. The trainer does the rest: it goes through the batches, calls `backward` and the
    optimizers, changes what is scheduled, validates, keeps the best weights, writes checkpoints.

    Attributes:
        task: What is predicted; there from `setup` on.
        loss_of: The loss of the spec, a function of raw outputs and targets (and of weights, where rows are weighed),
            whose value is a mean over the rows; there in the steps. In validation it weighs neither classes nor rows.

    Example:
        >>> class Robust(TorchModel):
        ...     def __init__(self, *, input_shape, output_size):
        ...         super().__init__()
        ...         self.layer = nn.Linear(input_shape[0], output_size)
        ...
        ...     def forward(self, inputs):
        ...         return self.layer(inputs)
        ...
        ...     def training_step(self, batch, *, noise=0.1):
        ...         noisy = batch.inputs + noise * torch.randn_like(batch.inputs)
        ...         return {"loss": self.loss_of(self(noisy), batch.targets), "size": noisy.abs().mean()}
    """

    task: Task
    loss_of: Loss

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = vars(cls)
        for name, value in own.items():
            # One's own methods may be called anything that does not look like one of those that training calls.
            if inspect.isfunction(value) and not name.startswith("_") and not hasattr(TorchModel, name):
                hint = did_you_mean(name, [hook for hook in HOOKS if hook not in own], likeness=0.85)
                if hint:
                    warnings.warn(f"{cls.__name__}.{name}: training calls no such method{hint}", stacklevel=2)

    def setup(self, task: Task) -> None:
        """Make what depends on the task; called once after the constructor, before weights are learned or restored.

        Args:
            task: What is predicted: its name, classes and `output_size`.
        """

    def training_step(self, batch: Batch) -> Outcome:
        """Return the loss of a batch.

        Args:
            batch: Inputs, targets and, where rows are weighed, weights, on the model's device. What the spec schedules
                beside the values of the optimizer is given to further arguments by their names: numbers, or tensors of
                shape () where the step is compiled.

        Returns:
            A tensor of shape (), the mean over the rows. Or a dict: `"loss"`, or the names of several optimizers, is
            made smaller; tensors of shape () under other names are logged as `train/<name>`, as means over the epoch.
        """
        return loss_of_batch(self, self.loss_of, batch)

    def validation_step(self, batch: Batch) -> Outcome:
        """Return what the model says of a batch that it does not learn from, in evaluation mode, without a graph.

        Returns:
            Raw outputs (rows, output_size), of which the loss and the metrics of the spec are worked out. Or a dict:
            raw outputs under `"outputs"` or none; tensors of shape () under other names are logged as `val/<name>`, as
            means over the rows.
        """
        outputs: torch.Tensor = self(batch.inputs)
        return outputs

    def test_step(self, batch: Batch) -> Outcome:
        """Return the same for the test part."""
        return self.validation_step(batch)

    def configure_optimizer(self, make: Callable[..., Optimizer]) -> Optimizer | Mapping[str, Optimizer]:
        """Return the optimizer, or several by name, each of which makes the loss of its name smaller.

        Args:
            make: Makes the optimizer of the spec: `make(parameters, **changed arguments)`, where the parameters may be
                groups such as `[{"params": …, "lr": 0.001}, …]`. A schedule keeps the ratio between groups.
        """
        return make([parameter for parameter in self.parameters() if parameter.requires_grad])

    def final_state(self) -> dict[str, Any]:
        """Return the tensors of the state dict that a prediction needs, by their names; a checkpoint holds all."""
        return self.state_dict()

    def has_improved(self, metrics: Mapping[str, float], best: Mapping[str, float]) -> bool | None:
        """Tell whether the metrics of an epoch are the best so far; not asked with `monitor: null`.

        Args:
            metrics: Of this epoch, such as `{"train/loss": 0.3, "val/loss": 0.4}`; those of the val part where it was
                validated, and these alone within an epoch.
            best: Of the best epoch so far; empty at first.

        Returns:
            None to leave it to the metric that training monitors.
        """
        return None

    def should_stop(self, metrics: Mapping[str, float]) -> bool:
        """Tell after an epoch whether training is to stop; metrics of the val part are there if it was validated."""
        return False


HOOKS = tuple(name for name, value in vars(TorchModel).items() if inspect.isfunction(value) and name[0] != "_")


def loss_of_batch(module: nn.Module, loss_of: Loss, batch: Batch) -> torch.Tensor:
    """Return the loss of what a module puts out: the training step of supervised learning."""
    if batch.weights is None:
        return loss_of(module(batch.inputs), batch.targets)
    return loss_of(module(batch.inputs), batch.targets, batch.weights)


def call_own(module: TorchModel, name: str, *arguments: Any) -> Any:
    """Call a method that a user may have written.

    Raises:
        TrainingError: It raised; the cause is chained.
    """
    try:
        return getattr(module, name)(*arguments)
    except GymtrainError:
        raise
    except Exception as error:
        raise TrainingError(f"model.model: {name} of {type(module).__name__} failed: {error}") from error
