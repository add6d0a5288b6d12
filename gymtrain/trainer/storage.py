"""The tensors of a model as `weights.safetensors` holds them, with what `storage.json` says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from gymtrain.bundle import Bundle
from gymtrain.errors import BundleError, some
from gymtrain.trainer.tensors import torch_tensor
from gymtrain.trainer.tying import tied, ties


def stored(
    state: Mapping[str, torch.Tensor], original: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors that are written, and what is said of them.

    Args:
        state: The state dict, on the CPU.
        original: The same as the model has it: on another device, copies do not share memory any more.
    """
    found = ties(original)
    tensors = {name: tensor for name, tensor in state.items() if name not in found}
    return tensors, {"tied": found} if found else {}


def restored(bundle: Bundle) -> dict[str, torch.Tensor]:
    """Return the state dict that a bundle holds.

    Raises:
        BundleError: `inconsistent`: The tensors are not what is said of them.
    """
    tensors = {name: torch_tensor(tensor) for name, tensor in (bundle.weights() or {}).items()}
    said = bundle.storage() or {}
    if unknown := sorted(said.keys() - {"tied"}):
        raise BundleError(f"storage.json: unknown {some(unknown)}", reason="inconsistent")
    return tied(tensors, said.get("tied", {}))
