"""The tensors of a model as `weights.safetensors` holds them, with what `storage.json` says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from gymtrain.bundle import Bundle
from gymtrain.errors import BundleError, some
from gymtrain.models.torch_learner import TorchLearner
from gymtrain.trainer.reducing import REDUCED, enlarged, reduced
from gymtrain.trainer.tensors import torch_tensor
from gymtrain.trainer.tying import tied, ties


class Stored(NamedTuple):
    """Tensors as they are written.

    Args:
        tensors: By name, on the CPU.
        said: How those of the model are made of them; empty where they are these.
    """

    tensors: dict[str, torch.Tensor]
    said: dict[str, Any]

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """The state dict that a reader makes of them.

        Raises:
            BundleError: `inconsistent`: The tensors are not what is said of them.
        """
        known = self.said.get("reduced", {"tensors": {}})
        if unknown := sorted(self.said.keys() - {"tied", "reduced", "rounded", "portable"}):
            raise BundleError(f"storage.json: unknown {some(unknown)}", reason="inconsistent")
        if not isinstance(known, dict):
            raise BundleError("storage.json: reduced: expected an object", reason="inconsistent")
        return tied(enlarged(self.tensors, known.get("tensors")), self.said.get("tied", {}))


def stored(learner: TorchLearner, dtype: str | None = None) -> Stored:
    """Return what is written of a module.

    Args:
        learner: With the module.
        dtype: In which type weights are written, one of `gymtrain.trainer.reducing.REDUCED`; None for their own.

    Raises:
        SaveError: The module keeps something else than tensors, or values that the type cannot hold.
    """
    saved = learner.save()
    found = ties(learner.final_state())  # not of what was copied to the CPU, which shares no memory
    tensors: Mapping[str, torch.Tensor] = {name: tensor for name, tensor in saved.items() if name not in found}
    said: dict[str, Any] = {"tied": found} if found else {}
    if dtype is not None:
        tensors, was = reduced(tensors, dtype)
        said["reduced"] = {"to": dtype, "tensors": was}
    return Stored(dict(tensors), said)


def restored(bundle: Bundle) -> dict[str, torch.Tensor]:
    """Return the state dict that a bundle holds.

    Raises:
        BundleError: `inconsistent`: The tensors are not what is said of them.
    """
    tensors = {name: torch_tensor(tensor) for name, tensor in (bundle.weights() or {}).items()}
    return Stored(tensors, bundle.storage() or {}).state


def reduced_to(bundle: Bundle) -> str | None:
    """Return in how few bytes weights are written, one of `REDUCED`; None for in as many as they have."""
    said = (bundle.storage() or {}).get("reduced")
    to = said.get("to") if isinstance(said, dict) else None
    return to if isinstance(to, str) and to in REDUCED else None


def rounded_to(bundle: Bundle) -> tuple[str, ...]:
    """Return in how few bytes the weights were written in earlier bundles, each one of `REDUCED`, in this order.

    Raises:
        BundleError: `inconsistent`: It is no list of such names.
    """
    said = (bundle.storage() or {}).get("rounded", [])
    if not isinstance(said, list) or any(not isinstance(to, str) or to not in REDUCED for to in said):
        raise BundleError(f"storage.json: rounded: expected a list of {some(REDUCED)}", reason="inconsistent")
    return tuple(said)
