"""One network as a file, by gymtrain and by other libraries, each as its own documentation says.

A class for each kind of file. `prepare` makes the network with random weights and is not timed, `save` writes it, and
`load` reads it in a process that has made nothing yet and returns what predicts rows. `warm_up` imports what is needed,
so that no import is timed.
"""

from __future__ import annotations

import importlib
import mmap
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

Predict = Callable[[np.ndarray[Any, Any]], Any]
FEATURES, CLASSES = 64, 10


def network(width: int, layers: int) -> nn.Sequential:
    """Return `layers` linear layers of `width` units and one for the classes."""
    sizes = [FEATURES] + [width] * layers
    inner = [layer for one, other in pairwise(sizes) for layer in (nn.Linear(one, other), nn.ReLU())]
    return nn.Sequential(*inner, nn.Linear(width, CLASSES))


class ModelFile:
    """How one library writes and reads a network."""

    needs: ClassVar[tuple[str, ...]] = ()
    suffix: ClassVar[str] = ""

    def __init__(self, width: int, layers: int) -> None:
        self.width, self.layers = width, layers

    def prepare(self) -> None:
        self.module = network(self.width, self.layers)

    def warm_up(self) -> None:
        for name in self.needs:
            importlib.import_module(name)

    def save(self, path: Path) -> None:
        raise NotImplementedError

    def load(self, path: Path) -> Predict:
        raise NotImplementedError

    def empty(self) -> nn.Sequential:
        with torch.device("meta"):
            return network(self.width, self.layers)


def predicting(module: nn.Module) -> Predict:
    module.eval()

    def predict(X: np.ndarray[Any, Any]) -> Any:
        with torch.inference_mode():
            return module(torch.from_numpy(X)).softmax(dim=1).numpy()

    return predict


class RawBytes(ModelFile):
    """The bytes of the weights and an fsync; to load, a map of them in the network. The bounds of what can be had."""

    def save(self, path: Path) -> None:
        with open(path, "wb") as file:
            for tensor in self.module.state_dict().values():
                file.write(tensor.numpy().reshape(-1).view(np.uint8).data)
            file.flush()
            os.fsync(file.fileno())

    def load(self, path: Path) -> Predict:
        module = self.empty()
        with open(path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        state, offset = {}, 0
        for name, tensor in module.state_dict().items():
            state[name] = torch.frombuffer(mapped, dtype=tensor.dtype, count=tensor.numel(), offset=offset)
            state[name] = state[name].reshape(tensor.shape)
            offset += tensor.numel() * tensor.itemsize
        module.load_state_dict(state, assign=True)
        return predicting(module)


class Hashed(RawBytes):
    """The same, read and hashed before it is mapped: the least that verifying it can take."""

    def load(self, path: Path) -> Predict:
        import hashlib

        digest, buffer = hashlib.sha256(), bytearray(1 << 20)
        with open(path, "rb", buffering=0) as file:
            while count := file.readinto(buffer):
                digest.update(memoryview(buffer)[:count])
        return super().load(path)


class Gymtrain(ModelFile):
    """`Trainer.save` and `Trainer.load`, with a `standard_scaler` before the network."""

    needs = ("gymtrain", "gymtrain.trainer.saving", "gymtrain.tracking")
    suffix = ".zip"
    verify: ClassVar[Any] = "eager"

    def prepare(self) -> None:
        from gymtrain import Trainer

        rows = np.random.default_rng(0).normal(size=(64, FEATURES)).astype(np.float32)
        labels = np.arange(64) % CLASSES
        self.root = tempfile.mkdtemp()
        self.trainer = Trainer(
            dataset={
                "dataset": {"type": "arrays", "X": rows, "y": labels},
                "samples": {"train": 1.0},
                "preprocessors": ["standard_scaler"],
            },
            model={
                "model": {"type": "mlp", "hidden": [self.width] * self.layers},
                "training": {"max_steps": 1, "optimizer": {"type": "sgd", "lr": 1e-6}, "device": "cpu"},
            },
            tracking={"root": self.root},
        )
        self.trainer.train()
        shutil.rmtree(self.root)

    def save(self, path: Path) -> None:
        self.trainer.save(path)

    def load(self, path: Path) -> Predict:
        from gymtrain import Trainer

        return Trainer.load(path, verify=self.verify).predict_proba


class GymtrainLazy(Gymtrain):
    """The same with `verify="lazy"`."""

    verify = "lazy"


class GymtrainUnverified(Gymtrain):
    """The same with `verify=False`."""

    verify = False


class TorchSave(ModelFile):
    """`torch.save` of the state dict, `torch.load(weights_only=True)` into a new network."""

    def save(self, path: Path) -> None:
        torch.save(self.module.state_dict(), path)

    def load(self, path: Path) -> Predict:
        module = network(self.width, self.layers)
        module.load_state_dict(torch.load(path, weights_only=True))
        return predicting(module)


class TorchMapped(TorchSave):
    """The same file with `mmap=True`, assigned to a network without memory."""

    def load(self, path: Path) -> Predict:
        module = self.empty()
        module.load_state_dict(torch.load(path, weights_only=True, mmap=True), assign=True)
        return predicting(module)


class Safetensors(ModelFile):
    """`safetensors.torch.save_file` and `load_file`, assigned to a network without memory."""

    needs = ("safetensors.torch",)

    def save(self, path: Path) -> None:
        from safetensors.torch import save_file

        save_file(self.module.state_dict(), path)

    def load(self, path: Path) -> Predict:
        from safetensors.torch import load_file

        module = self.empty()
        module.load_state_dict(load_file(path), assign=True)
        return predicting(module)


class Joblib(ModelFile):
    """`joblib.dump` and `joblib.load` of the module."""

    needs = ("joblib",)

    def save(self, path: Path) -> None:
        import joblib

        joblib.dump(self.module, path)

    def load(self, path: Path) -> Predict:
        import joblib

        return predicting(joblib.load(path))


class Skorch(ModelFile):
    """A pickle of the `NeuralNetClassifier`, as its page on saving and loading begins."""

    needs = ("skorch",)

    def prepare(self) -> None:
        import skorch

        super().prepare()
        self.net = skorch.NeuralNetClassifier(self.module, verbose=0, train_split=None).initialize()

    def save(self, path: Path) -> None:
        with open(path, "wb") as file:
            pickle.dump(self.net, file)

    def load(self, path: Path) -> Predict:
        with open(path, "rb") as file:
            net = pickle.load(file)
        return net.predict_proba


class Keras(ModelFile):
    """`model.save("x.keras")` and `keras.models.load_model`."""

    needs = ("keras",)
    suffix = ".keras"

    def prepare(self) -> None:
        import keras

        layers = [keras.layers.Dense(self.width, activation="relu") for _ in range(self.layers)]
        self.model = keras.Sequential([keras.Input((FEATURES,)), *layers, keras.layers.Dense(CLASSES, "softmax")])

    def save(self, path: Path) -> None:
        self.model.save(path)

    def load(self, path: Path) -> Predict:
        import keras

        model = keras.models.load_model(path)
        return lambda X: model.predict_on_batch(X)


class Lightning(ModelFile):
    """`trainer.save_checkpoint(weights_only=True)` and `load_from_checkpoint`."""

    needs = ("lightning",)
    suffix = ".ckpt"

    def prepare(self) -> None:
        import lightning

        super().prepare()
        self.trainer = lightning.Trainer(
            logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu"
        )
        self.trainer.strategy.connect(_lightning_module(self.module))

    def save(self, path: Path) -> None:
        self.trainer.save_checkpoint(path, weights_only=True)

    def load(self, path: Path) -> Predict:
        kind = type(_lightning_module(nn.Identity()))
        module = kind.load_from_checkpoint(path, map_location="cpu", module=network(self.width, self.layers))
        return predicting(module)


def _lightning_module(module: nn.Module) -> Any:
    import lightning

    class Wrapped(lightning.LightningModule):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.module(inputs)

    return Wrapped(module)


class MLflow(ModelFile):
    """`mlflow.pytorch.save_model` and `load_model`."""

    needs = ("mlflow.pytorch",)

    def save(self, path: Path) -> None:
        import mlflow.pytorch

        shutil.rmtree(path, ignore_errors=True)
        mlflow.pytorch.save_model(self.module, path, pip_requirements=[], serialization_format="pickle")

    def load(self, path: Path) -> Predict:
        import mlflow.pytorch

        return predicting(mlflow.pytorch.load_model(path))


KINDS: dict[str, type[ModelFile]] = {
    "bytes and fsync, mapped": RawBytes,
    "bytes and fsync, read, hashed and mapped": Hashed,
    "gymtrain": Gymtrain,
    "gymtrain, verify='lazy'": GymtrainLazy,
    "gymtrain, verify=False": GymtrainUnverified,
    "torch.save, weights_only": TorchSave,
    "torch.save, weights_only, mmap": TorchMapped,
    "safetensors": Safetensors,
    "joblib": Joblib,
    "skorch, pickle": Skorch,
    "Keras": Keras,
    "Lightning": Lightning,
    "MLflow": MLflow,
}


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a directory."""
    return (
        sum(each.stat().st_size for each in path.rglob("*") if each.is_file()) if path.is_dir() else path.stat().st_size
    )
