"""Tensors of torch as a bundle holds them, and back."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

import torch

from gymtrain.bundle import Tensor
from gymtrain.errors import BundleError, SaveError

# What safetensors calls the types of torch.
DTYPES: Final = MappingProxyType(
    {
        torch.float64: "F64",
        torch.float32: "F32",
        torch.float16: "F16",
        torch.bfloat16: "BF16",
        torch.int64: "I64",
        torch.int32: "I32",
        torch.int16: "I16",
        torch.int8: "I8",
        torch.uint8: "U8",
        torch.uint16: "U16",
        torch.uint32: "U32",
        torch.uint64: "U64",
        torch.complex64: "C64",
        torch.bool: "BOOL",
    }
)
TORCH_DTYPES: Final = MappingProxyType({name: dtype for dtype, name in DTYPES.items()})


def tensor_of(tensor: torch.Tensor) -> Tensor:
    """Return a tensor of torch as a bundle holds it; its memory is shared, not copied."""
    if tensor.dtype not in DTYPES:
        raise SaveError(f"the model has a tensor of type {tensor.dtype}, which safetensors cannot hold")
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return Tensor(DTYPES[tensor.dtype], tuple(tensor.shape), flat.numpy().data)


def torch_tensor(tensor: Tensor) -> torch.Tensor:
    """Return a tensor of a bundle as torch has it; its memory is the map of the file, copied where it is written to.

    Raises:
        BundleError: `weights_dtype`: no model has tensors of this type (the 8-bit floats).
    """
    if tensor.dtype not in TORCH_DTYPES:
        raise BundleError(f"a tensor is {tensor.dtype}, which no model of torch has here", reason="weights_dtype")
    dtype = TORCH_DTYPES[tensor.dtype]
    if 0 in tensor.shape:
        return torch.empty(tensor.shape, dtype=dtype)
    return torch.frombuffer(tensor.data, dtype=dtype).reshape(tensor.shape)
