"""Parameters that are not learned."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from gymtrain.errors import TrainingError
from gymtrain.models.parameter_names import spoken_of

_PATH = "model.training.freeze"


class Freezing:
    """Parameters of a module that are not learned: for good, or until an epoch.

    They get no gradients, and so no optimizer changes them, decays them or keeps anything of them. A batch norm all of
    whose tensors are frozen uses the means and variances that it has and learns no others.

    Args:
        module: What learns.
        patterns: Of the names of its parameters and buffers; none to freeze nothing.
        unfreeze_at_epoch: The epoch, counted from 1, from which they are learned; None for never.

    Raises:
        SpecError: A pattern matches no tensor.
        TrainingError: Nothing is left to be learned.

    Example:
        >>> module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
        >>> freezing = Freezing(module, ["0.*", "1.*"], unfreeze_at_epoch=3)
        >>> freezing.begin_epoch(1)
        >>> freezing.train()
        >>> module[0].weight.requires_grad, module[1].training, module[2].training
        (False, False, True)
        >>> freezing.begin_epoch(3)
        >>> module[0].weight.requires_grad
        True
    """

    def __init__(self, module: nn.Module, patterns: Sequence[str], unfreeze_at_epoch: int | None = None) -> None:
        parameters = dict(module.named_parameters(remove_duplicate=False))
        buffers = [name for name, _ in module.named_buffers(remove_duplicate=False)]
        frozen = spoken_of(patterns, [*parameters, *buffers], _PATH)
        self._module, self._unfreeze_at_epoch = module, unfreeze_at_epoch
        # What the module itself has frozen stays so.
        self._parameters = [
            parameters[name] for name in frozen if name in parameters and parameters[name].requires_grad
        ]
        self._norms = [
            layer
            for name, layer in module.named_modules()
            if isinstance(layer, _NormBase) and _tensors_of(name, layer) <= frozen.keys()
        ]
        is_all = {id(each) for each in self._parameters} >= {
            id(each) for each in module.parameters() if each.requires_grad
        }
        if patterns and is_all and unfreeze_at_epoch != 1:
            raise TrainingError(f"{_PATH}: it leaves nothing of {type(module).__name__} to be learned; freeze less")

    def begin_epoch(self, epoch: int) -> None:
        """Freeze what is not learned in an epoch, counted from 1."""
        self._is_over = self._unfreeze_at_epoch is not None and epoch >= self._unfreeze_at_epoch
        for parameter in self._parameters:
            parameter.requires_grad_(self._is_over)

    def train(self) -> None:
        """Put the module in training mode, but for frozen batch norm."""
        self._module.train()
        for layer in [] if self._is_over else self._norms:
            layer.eval()


def freeze_what_is_known(module: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze the parameters of a module that was learned elsewhere, so that who counts them sees which were learned."""
    for name, parameter in module.named_parameters():
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            parameter.requires_grad_(False)


def _tensors_of(name: str, layer: nn.Module) -> set[str]:
    prefix = f"{name}." if name else ""
    return {f"{prefix}{own}" for own, _ in [*layer.named_parameters(), *layer.named_buffers()]} or {""}
