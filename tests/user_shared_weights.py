"""What users bring: modules whose tensors share memory, in the ways that there are."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Shared(nn.Module):
    """Tied weights, views of them and of a buffer, and tensors that only lie in one storage.

    Args:
        input_shape: Of a row.
        output_size: Of the outputs.
        tie: Whether the two square layers share their weight; a setting that another process may have changed.
    """

    def __init__(self, input_shape: tuple[int, ...], output_size: int, tie: bool = True) -> None:
        super().__init__()
        size = input_shape[0]
        self.encode = nn.Linear(size, size, bias=False)
        self.decode = nn.Linear(size, size)
        if tie:
            self.decode.weight = self.encode.weight
        self.register_buffer("first_rows", self.encode.weight.data[:2])
        self.register_buffer("turned", self.encode.weight.data.T)
        table = torch.randn(6)
        self.register_buffer("table", table)
        self.register_buffer("every_second", table[::2])
        self.left, self.right = (nn.Parameter(half) for half in torch.randn(2, size).unbind())
        self.register_buffer("beginning", table.new_zeros(5)[:4])
        self.register_buffer("none", torch.empty(0))
        self.head = nn.Linear(size, output_size)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        rows = self.decode(self.encode(rows).relu()).relu() * self.left + self.right
        return self.head(rows + (rows @ self.turned).detach() + self.every_second.sum() + self.first_rows.sum())


class Untying(Shared):
    """Unties in its setup what its constructor has tied."""

    def setup(self, task: Any) -> None:
        self.decode.weight = nn.Parameter(self.encode.weight.detach().clone())
