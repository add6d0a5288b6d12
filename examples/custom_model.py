"""A network of your own, by a name of your own: any torch.nn.Module, with no base class of gymtrain's.

The name is registered when this module is imported, and so it is known wherever the bundle is loaded after
`import custom_model`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from gymtrain import Trainer, register


@register("model", "residual_mlp")
class ResidualMLP(nn.Module):
    """Linear layers, each of which adds to what came in.

    Args:
        input_shape: The shape of one row; given by gymtrain, from the data.
        output_size: The number of raw outputs that the task needs; given by gymtrain too.
        width: The number of hidden values.
        depth: The number of layers between the first and the last.
    """

    def __init__(self, input_shape: tuple[int, ...], output_size: int, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.first = nn.Linear(math.prod(input_shape), width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last = nn.Linear(width, output_size)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return raw outputs (rows, output_size): logits, no softmax."""
        hidden = self.first(rows.flatten(1))
        for layer in self.layers:
            hidden = hidden + layer(hidden.relu())
        outputs: torch.Tensor = self.last(hidden)
        return outputs


def main() -> None:
    """Train it, save it, load it again."""
    trainer = Trainer(
        dataset={"dataset": {"type": "breast_cancer"}, "preprocessors": [{"type": "standard_scaler"}]},
        model={
            "model": {"type": "residual_mlp", "width": 16},
            "training": {"epochs": 10, "validation_split": 0.2, "metrics": ["accuracy", "f1", "roc_auc"]},
        },
        tracking={"experiment": "custom_model"},
    )
    result = trainer.train()
    print({name: round(value, 3) for name, value in result["metrics"].items() if name.startswith("test/")})

    trainer.save("residual.zip")
    rows = np.full((2, 30), 10.0)
    print("probabilities:", Trainer.load("residual.zip").predict_proba(rows).round(3).tolist())


if __name__ == "__main__":
    main()
