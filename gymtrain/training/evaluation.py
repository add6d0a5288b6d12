"""Loss and metrics of a model on rows that it does not learn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

from gymtrain.data.batch import Batch
from gymtrain.data.decoding import ImageArray
from gymtrain.models.contract import Learner
from gymtrain.models.metrics import Metrics
from gymtrain.models.torch_learner import TorchLearner
from gymtrain.models.torch_model import Loss


class Evaluation:
    """What it takes to evaluate on one part of the rows, as often as wanted.

    Args:
        part: Which part of the dataset they are: a module may have a step of its own for `"test"`.
        X: Rows, as the preprocessors made them, or pixels.
        targets: What the task made of the labels.
        metrics: Which values are wanted beside the loss.
        loss_of: The loss; None for a model of another library than torch, which has its own.
        device: Where a torch module lies.
        finish: What makes of rows what the module takes, given them on its device; None where they are that already.
        check: Called before each block of rows; may raise to end the evaluation.
    """

    def __init__(
        self,
        part: str,
        X: torch.Tensor | ImageArray,
        targets: torch.Tensor,
        metrics: Metrics,
        loss_of: Loss | None,
        device: torch.device,
        finish: Callable[[torch.Tensor], torch.Tensor] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.part, self.X, self.targets = part, X if isinstance(X, ImageArray) else X.to(device), targets.to(device)
        self.metrics, self.loss_of, self._check = metrics, loss_of, check
        self._device, self._finish = device, finish

    def first(self, rows: int, dtype: torch.dtype) -> Batch:
        """Return the first rows, as a module takes them."""
        inputs, targets = self._block(0, min(rows, len(self.X)))
        return Batch(inputs.to(dtype), targets)

    def __call__(self, learner: Learner) -> dict[str, float]:
        """Return the loss, if there is one, and the metrics: means over the rows, whatever the size of a block."""
        if isinstance(learner, TorchLearner):
            return self._of_module(learner)
        for inputs, targets in self._blocks():
            self.metrics.update(torch.tensor(learner.scores(inputs.numpy())), targets)
        return self.metrics.compute()

    def _of_module(self, learner: TorchLearner) -> dict[str, float]:
        sums: dict[str, torch.Tensor] = {}
        has_outputs = False
        with learner.evaluating(self.loss_of):
            for inputs, targets in self._blocks():
                outputs, values = learner.outputs(self.part, Batch(inputs.to(learner.dtype), targets))
                if outputs is not None:
                    has_outputs = True
                    self.metrics.update(learner.task.activate(outputs), targets)
                    if self.loss_of is not None and "loss" not in values:
                        values = {"loss": self.loss_of(outputs, targets), **values}
                for name, value in values.items():
                    sums[name] = sums.get(name, torch.zeros((), device=value.device)) + value * len(targets)
        means = {name: float(total) / len(self.X) for name, total in sums.items()}
        # What the model's own step worked out stands before a metric of that name.
        return means | (self.metrics.compute() | means if has_outputs else {})

    def _blocks(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Blocks as large as is reasonable: nothing is remembered for a backward pass."""
        features = math.prod(self.X.shape[1:])
        size = min(max(2**22 // max(features, 1), 256), 16384)
        for start in range(0, len(self.X), size):
            self._check()
            yield self._block(start, min(start + size, len(self.X)))

    def _block(self, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        if isinstance(self.X, ImageArray):
            pixels, rows = self.X.gathered(np.arange(start, stop))
            X, targets = torch.from_numpy(pixels).to(self._device), self.targets[torch.from_numpy(rows)]
        else:
            X, targets = self.X[start:stop], self.targets[start:stop]
        return (X if self._finish is None else self._finish(X)), targets
