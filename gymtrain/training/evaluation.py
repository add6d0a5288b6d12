"""Loss and metrics of a model on rows that it does not learn from."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from gymtrain.models.contract import Learner
from gymtrain.models.metrics import Metrics
from gymtrain.models.torch_learner import TorchLearner
from gymtrain.training.loop import Loss


class Evaluation:
    """What it takes to evaluate on one part of the rows, as often as wanted.

    Args:
        X: Rows, as the preprocessors made them.
        targets: What the task made of the labels.
        metrics: Which values are wanted beside the loss.
        loss_of: The loss; None for a model of another library than torch, which has its own.
        device: Where a torch module lies.
    """

    def __init__(
        self, X: torch.Tensor, targets: torch.Tensor, metrics: Metrics, loss_of: Loss | None, device: torch.device
    ) -> None:
        self.X, self.targets = X.to(device), targets.to(device)
        self.metrics, self.loss_of = metrics, loss_of

    def __call__(self, learner: Learner) -> dict[str, float]:
        """Return the loss, if there is one, and the metrics: means over the rows, whatever the size of a block."""
        total = torch.zeros((), device=self.X.device)
        if isinstance(learner, TorchLearner):
            learner.module.eval()
            with torch.inference_mode():
                for inputs, targets in self._blocks():
                    outputs = learner.module(inputs)
                    if self.loss_of is not None:
                        total += self.loss_of(outputs, targets) * len(targets)
                    self.metrics.update(learner.task.activate(outputs).float(), targets)
        else:
            for inputs, targets in self._blocks():
                self.metrics.update(torch.tensor(learner.scores(inputs.numpy())), targets)
        loss = {} if self.loss_of is None else {"loss": float(total) / max(len(self.X), 1)}
        return {**loss, **self.metrics.compute()}

    def _blocks(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Blocks as large as is reasonable: nothing is remembered for a backward pass."""
        features = math.prod(self.X.shape[1:])
        size = min(max(2**22 // max(features, 1), 256), 16384)
        for start in range(0, len(self.X), size):
            yield self.X[start : start + size], self.targets[start : start + size]
