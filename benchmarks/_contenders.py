"""The same training by gymtrain, by hand and by other libraries, each as fast as its own documentation makes it.

Each function trains one case from the beginning and returns what it took and what came of it. Of the others only the
call that trains is timed, with everything around it switched off; of gymtrain the whole stage `fit_model`, and of the
hand-written loop too the making of model and optimizer.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

Array = np.ndarray[Any, Any]
CLASSES = 10


class Case(NamedTuple):
    """What is trained on what. `X` is (rows, features), or (rows, height, width) for the convolutions."""

    name: str
    X: Array
    y: Array
    hidden: list[int]
    channels: list[int]
    batch_size: int
    epochs: int

    @property
    def steps(self) -> int:
        return self.epochs * -(-len(self.X) // self.batch_size)


class Turn(NamedTuple):
    """Seconds of a training, and the function that gives the scores of its classes for rows."""

    seconds: float
    scores: Callable[[Array], Array]


def network(case: Case) -> nn.Sequential:
    """Return the layers of a case; images come with a dimension for their one channel, before height and width."""
    layers: list[nn.Module] = []
    for size, channel in pairwise([1, *case.channels]):
        layers += [nn.Conv2d(size, channel, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2)]
    if case.channels:
        layers.append(nn.Flatten())
    for size, width in pairwise([features(case), *case.hidden]):
        layers += [nn.Linear(size, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(case.hidden[-1], CLASSES))


def features(case: Case) -> int:
    """Return what the first linear layer takes in: each convolution is followed by a halving of the image."""
    if not case.channels:
        return case.X.shape[1]
    height, width = (length // 2 ** len(case.channels) for length in case.X.shape[1:])
    return case.channels[-1] * height * width


def tensors(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    return as_input(case.X), torch.from_numpy(case.y)


def as_input(X: Array) -> torch.Tensor:
    return torch.from_numpy(X[:, None] if X.ndim == 3 else X)


def fused_adam(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(module.parameters(), fused=True)


def turn_of(module: nn.Module, seconds: float) -> Turn:
    def scores(X: Array) -> Array:
        with torch.inference_mode():
            return module.eval()(as_input(X)).numpy()

    return Turn(seconds, scores)


def by_hand(case: Case) -> Turn:
    """One permutation per epoch, batches by `index_select`, fused Adam, the loss read once an epoch."""
    return _by_hand(case, torch.contiguous_format)


def channels_last(case: Case) -> Turn:
    """The same with images and kernels in the order in which convolutions are fastest."""
    return _by_hand(case, torch.channels_last)


def _by_hand(case: Case, order: torch.memory_format) -> Turn:
    inputs, targets = tensors(case)
    started = perf_counter()
    torch.manual_seed(0)
    module = network(case).to(memory_format=order)
    if order is torch.channels_last:
        # With a single channel both orders look alike, and torch takes it for the other: its strides have to say it.
        inputs = inputs.as_strided(inputs.shape, (inputs.stride(0), 1, inputs.stride(2), inputs.stride(3)))
    optimizer, loss_of = fused_adam(module), nn.CrossEntropyLoss()
    module.train()
    for _ in range(case.epochs):
        total = torch.zeros(())
        for chosen in torch.randperm(len(inputs)).split(case.batch_size):
            batch, labels = inputs.index_select(0, chosen), targets.index_select(0, chosen)
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(module(batch), labels)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        total.item()
    return turn_of(module, perf_counter() - started)


def gymtrain(case: Case) -> Turn:
    return _gymtrain(case)


def gymtrain_safely(case: Case) -> Turn:
    """With early stopping, which never strikes, and a checkpoint after each epoch."""
    stopping = {"monitor": "train/loss", "patience": case.epochs}
    return _gymtrain(case, early_stopping=stopping, checkpoint={"every_epochs": 1})


def _gymtrain(case: Case, **training: Any) -> Turn:
    from gymtrain import Trainer

    layers = {"type": "cnn", "channels": case.channels} if case.channels else {"type": "mlp"}
    with tempfile.TemporaryDirectory() as root:
        trainer = Trainer(
            dataset={
                "dataset": {"type": "arrays", "X": case.X, "y": case.y, "task": "multiclass"},
                "samples": {"train": 1.0},
                "preprocessors": [],
            },
            model={
                "model": {**layers, "hidden": case.hidden},
                "training": {"epochs": case.epochs, "batch_size": case.batch_size, "device": "cpu", **training},
            },
            tracking={"root": root, "trackers": [], "log_every_n_steps": 0},
        )
        seconds: float = trainer.train()["elapsed"]["fit_model"]
    return Turn(seconds, trainer.predict_proba)


Batches = Iterable[Any]


class Gathered:
    """Batches gathered by index, for libraries that take any iterable: a DataLoader picks row by row."""

    def __init__(self, case: Case) -> None:
        self.inputs, self.targets = tensors(case)
        self.batch_size = case.batch_size

    def __len__(self) -> int:
        return -(-len(self.inputs) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for chosen in torch.randperm(len(self.inputs)).split(self.batch_size):
            yield self.inputs.index_select(0, chosen), self.targets.index_select(0, chosen)


def loader(case: Case) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*tensors(case)), batch_size=case.batch_size, shuffle=True)


def lightning(case: Case) -> Turn:
    return _lightning(case, loader(case))


def lightning_gathered(case: Case) -> Turn:
    return _lightning(case, Gathered(case))


def _lightning(case: Case, batches: Batches) -> Turn:
    """`barebones` is its own switch for speed: no logger, no checkpoints, no progress bar, no summary, no checks."""
    from lightning.pytorch import LightningModule, Trainer

    class Wrapped(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.module, self.loss_of = network(case), nn.CrossEntropyLoss()

        def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
            inputs, targets = batch
            loss: torch.Tensor = self.loss_of(self.module(inputs), targets)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return fused_adam(self)

    torch.manual_seed(0)
    wrapped = Wrapped()
    trainer = Trainer(max_epochs=case.epochs, accelerator="cpu", devices=1, barebones=True)
    started = perf_counter()
    trainer.fit(wrapped, batches)
    return turn_of(wrapped.module, perf_counter() - started)


def skorch(case: Case) -> Turn:
    """Without callbacks, of which it has four by default, and without a validation part."""
    from skorch import NeuralNetClassifier

    torch.manual_seed(0)
    net = NeuralNetClassifier(
        network(case),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        optimizer__fused=True,
        lr=1e-3,  # that of Adam: its own is 0.01
        batch_size=case.batch_size,
        max_epochs=case.epochs,
        iterator_train__shuffle=True,
        train_split=None,
        callbacks="disable",
        verbose=0,
    )
    inputs, targets = as_input(case.X).numpy(), case.y
    started = perf_counter()
    net.fit(inputs, targets)
    return turn_of(net.module_, perf_counter() - started)


def keras(case: Case) -> Turn:
    """On torch, with the channels in the order of torch; not compiled, which is its own choice there."""
    import keras as library

    library.utils.set_random_seed(0)
    layers: list[Any] = []
    for channel in case.channels:
        layers += [
            library.layers.Conv2D(channel, 3, padding="same", activation="relu", data_format="channels_first"),
            library.layers.MaxPooling2D(2, data_format="channels_first"),
        ]
    if case.channels:
        layers.append(library.layers.Flatten(data_format="channels_first"))
    layers += [library.layers.Dense(width, activation="relu") for width in case.hidden]
    inputs = as_input(case.X).numpy()
    model = library.Sequential([library.Input(inputs.shape[1:]), *layers, library.layers.Dense(CLASSES)])
    model.compile(optimizer="adam", loss=library.losses.SparseCategoricalCrossentropy(from_logits=True))
    started = perf_counter()
    model.fit(inputs, case.y, batch_size=case.batch_size, epochs=case.epochs, verbose=0)
    seconds = perf_counter() - started
    return Turn(seconds, lambda X: model.predict(as_input(X).numpy(), verbose=0))


def ignite(case: Case) -> Turn:
    return _ignite(case, loader(case))


def ignite_gathered(case: Case) -> Turn:
    return _ignite(case, Gathered(case))


def _ignite(case: Case, batches: Batches) -> Turn:
    """With the loss left where it is: the default reads it after each step."""
    from ignite.engine import create_supervised_trainer

    torch.manual_seed(0)
    module = network(case)
    trainer = create_supervised_trainer(
        module,
        fused_adam(module),
        nn.CrossEntropyLoss(),
        output_transform=lambda inputs, targets, outputs, loss: loss.detach(),
    )
    started = perf_counter()
    trainer.run(batches, max_epochs=case.epochs)
    return turn_of(module, perf_counter() - started)


def accelerate(case: Case) -> Turn:
    return _accelerate(case, loader(case))


def accelerate_gathered(case: Case) -> Turn:
    return _accelerate(case, Gathered(case))


def _accelerate(case: Case, batches: Batches) -> Turn:
    """The loop of its documentation, with the loss left where it is."""
    from accelerate import Accelerator

    torch.manual_seed(0)
    module = network(case)
    accelerator = Accelerator(cpu=True)
    started = perf_counter()
    module, optimizer, batches = accelerator.prepare(module, fused_adam(module), batches)
    loss_of = nn.CrossEntropyLoss()
    module.train()
    for _ in range(case.epochs):
        total = torch.zeros(())
        for inputs, targets in batches:
            optimizer.zero_grad()
            loss = loss_of(module(inputs), targets)
            accelerator.backward(loss)
            optimizer.step()
            total += loss.detach()
        total.item()
    return turn_of(module, perf_counter() - started)


class Contender(NamedTuple):
    """How it trains, and the module and the distribution that it takes."""

    train: Callable[[Case], Turn]
    module: str
    distribution: str


HAND_WRITTEN = "hand-written"

CONTENDERS = {
    HAND_WRITTEN: Contender(by_hand, "torch", "torch"),
    "hand-written again": Contender(by_hand, "torch", "torch"),
    "hand-written, channels last": Contender(channels_last, "torch", "torch"),
    "gymtrain": Contender(gymtrain, "gymtrain", "gymtrain"),
    "gymtrain, stopping and checkpoints": Contender(gymtrain_safely, "gymtrain", "gymtrain"),
    "lightning": Contender(lightning, "lightning.pytorch", "lightning"),
    "lightning, gathered": Contender(lightning_gathered, "lightning.pytorch", "lightning"),
    "skorch": Contender(skorch, "skorch", "skorch"),
    "keras": Contender(keras, "keras", "keras"),
    "ignite": Contender(ignite, "ignite.engine", "pytorch-ignite"),
    "ignite, gathered": Contender(ignite_gathered, "ignite.engine", "pytorch-ignite"),
    "accelerate": Contender(accelerate, "accelerate", "accelerate"),
    "accelerate, gathered": Contender(accelerate_gathered, "accelerate", "accelerate"),
}
