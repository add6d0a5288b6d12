"""Modules that a process may not have, for bundles that predict without them."""

from __future__ import annotations

import torch
from torch import nn


class Net(nn.Module):
    """Has all that behaves otherwise in evaluation: batch norm, dropout, and two names for one weight."""

    def __init__(self, input_shape: tuple[int, ...], output_size: int, width: int = 8) -> None:
        super().__init__()
        self.first = nn.Linear(input_shape[0], width)
        self.norm, self.drop = nn.BatchNorm1d(width), nn.Dropout(0.3)
        self.last = nn.Linear(width, output_size)
        self.again = self.last

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        hidden = self.drop(torch.relu(self.norm(self.first(rows))))
        return self.last(hidden) + self.again(hidden)


class Branching(nn.Linear):
    """Looks at the values of the rows, which no graph can."""

    def __init__(self, input_shape: tuple[int, ...], output_size: int) -> None:
        super().__init__(input_shape[0], output_size)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        outputs = super().forward(rows)
        return -outputs if rows.sum() > 0 else outputs


class Forgetful(nn.Linear):
    """Is another function where a graph is made of it."""

    def __init__(self, input_shape: tuple[int, ...], output_size: int) -> None:
        super().__init__(input_shape[0], output_size)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return super().forward(rows) * (1.0 if torch.compiler.is_compiling() else 2.0)
