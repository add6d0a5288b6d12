"""The bundle: everything that a trained model needs, in one zip file that anyone may open.

`write` makes one out of `Contents`, `open_bundle` verifies all of it and hands out what it holds, `inspect` reads what
is meant for people. The format is in docs/bundle-format.md. This room knows neither torch nor scikit-learn: tensors
come and go as `Tensor`, what skops made as bytes.
"""

from __future__ import annotations

from gymtrain.bundle.addresses import is_of_mlflow, is_url
from gymtrain.bundle.atomic import atomic_write, remove_leftovers
from gymtrain.bundle.contents import Contents, State
from gymtrain.bundle.differences import Difference, differences
from gymtrain.bundle.reader import Bundle, Verify, inspect, open_bundle
from gymtrain.bundle.remote import download, local_path
from gymtrain.bundle.sealing import sign
from gymtrain.bundle.signing import PrivateKey, PublicKey, Signature, SignedBy, generate_key, signer
from gymtrain.bundle.source import Readable, name_of
from gymtrain.bundle.target import Writable, check_target
from gymtrain.bundle.tensors import Tensor, from_numpy, to_numpy
from gymtrain.bundle.verification import Verification
from gymtrain.bundle.writer import write

__all__ = [
    "Bundle",
    "Contents",
    "Difference",
    "PrivateKey",
    "PublicKey",
    "Readable",
    "Signature",
    "SignedBy",
    "State",
    "Tensor",
    "Verification",
    "Verify",
    "Writable",
    "atomic_write",
    "check_target",
    "differences",
    "download",
    "from_numpy",
    "generate_key",
    "inspect",
    "is_of_mlflow",
    "is_url",
    "local_path",
    "name_of",
    "open_bundle",
    "remove_leftovers",
    "sign",
    "signer",
    "to_numpy",
    "write",
]
