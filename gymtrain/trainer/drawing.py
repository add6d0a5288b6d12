"""The graph of a module, in the form that TensorBoard draws."""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from pathlib import Path

import torch

from gymtrain.bundle import atomic_write
from gymtrain.models.seeding import seeded
from gymtrain.models.torch_learner import TorchLearner


def write_graph(learner: TorchLearner, inputs: torch.Tensor, path: Path) -> bool:
    """Trace a copy of the module and write what it does as a serialized `GraphDef`; the module stays as it is.

    Args:
        learner: Has the module.
        inputs: A few rows that it takes.
        path: Of the file, which is written whole or not at all.

    Returns:
        Whether it was written; a module that cannot be traced gets a warning.
    """
    from torch.utils.tensorboard._pytorch_graph import graph  # what SummaryWriter.add_graph calls, without the writer

    name = type(learner.module).__name__
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),  # it prints its failures
            seeded(0, learner.device),
            torch.no_grad(),
        ):
            warnings.simplefilter("ignore")  # of tracing, which would be about the drawing alone
            rows = inputs.to(learner.device, learner.dtype)
            drawn, _ = graph(copy.deepcopy(learner.module), rows)  # type: ignore[no-untyped-call]
    except Exception as error:
        why = str(error).strip().partition("\n")[0]
        warnings.warn(
            f"tracking: the graph of {name} cannot be drawn ({why}); the run goes on without it", stacklevel=2
        )
        return False
    with atomic_write(path) as file:
        file.write(drawn.SerializeToString())
    return True
