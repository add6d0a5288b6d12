"""How the parameters of a module and their gradients are distributed, for trackers that ask for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn

from gymtrain.training.callbacks import Callback, TrainingState

BINS = 64


class ParameterHistograms(Callback):
    """Reports histograms of all parameters and of their last gradients at the end of each epoch.

    They are made on the device and fetched together. Nothing is drawn at random and nothing of the module changes.

    Args:
        module: Whose parameters.
        report: Takes a name such as `parameters/0.weight` or `gradients/0.weight`, counts (bins,), edges (bins + 1,)
            and the epoch.
    """

    def __init__(self, module: nn.Module, report: Callable[[str, Sequence[int], Sequence[float], int], None]) -> None:
        self._module, self._report = module, report

    def on_epoch_end(self, state: TrainingState) -> None:
        """Report them."""
        tensors: dict[str, torch.Tensor] = {}
        for name, parameter in self._module.named_parameters():
            tensors[f"parameters/{name}"] = parameter.detach()
            if parameter.grad is not None:
                tensors[f"gradients/{name}"] = parameter.grad.detach()
        for name, (counts, edges) in histograms(tensors).items():
            self._report(name, counts, edges, state.epoch)


def histograms(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[list[int], list[float]]]:
    """Return the counts (bins,) and the edges (bins + 1,) of each tensor, from its smallest to its largest value.

    Values that are not finite are not counted; a tensor without any other, of none or of complex ones is left out.

    Example:
        >>> counts, edges = histograms({"weight": torch.tensor([0.0, 0.5, 1.0, math.inf])})["weight"]
        >>> counts[0], counts[BINS // 2], counts[-1], sum(counts), edges[0], edges[-1]
        (1, 1, 1, 3, 0.0, 1.0)
    """
    counted = {
        name: _counts(each.flatten())
        for name, each in tensors.items()
        if each.numel() and each.is_floating_point() and not each.is_sparse
    }
    if not counted:
        return {}
    all_counts = torch.stack([counts for counts, _ in counted.values()]).tolist()
    all_edges = torch.stack([edges for _, edges in counted.values()]).tolist()
    return {
        name: (counts, edges)
        for name, counts, edges in zip(counted, all_counts, all_edges, strict=True)
        if all(map(math.isfinite, edges)) and all(low < high for low, high in pairwise(edges))
    }


def _counts(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # By sorting: torch.histc has no deterministic kernel on CUDA, and would need the limits on the host.
    values = values.float().nan_to_num(math.inf, math.inf, -math.inf).sort().values  # NaN has no place in an order
    finite = values.isfinite()
    low = values.where(finite, math.inf).min()
    high = values.where(finite, -math.inf).max()
    # Values that are all but equal get edges around them that differ in float32.
    scale = torch.maximum(low.abs(), high.abs())
    margin = (high - low <= 1e-4 * scale) * (1e-3 * scale + 0.5 * (scale == 0))
    edges = low - margin + (high - low + 2 * margin) * torch.linspace(0, 1, BINS + 1, device=values.device)
    edges[-1] = high + margin
    places = torch.searchsorted(values, edges)
    places[-1] = torch.searchsorted(values, edges[-1], right=True)
    return places.diff(), edges
