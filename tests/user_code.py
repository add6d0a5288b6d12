"""What users bring: modules, models, preprocessors, losses and a tracker, some of them registered."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from gymtrain import Callback, register
from gymtrain.data.augmentors import Augmentor
from gymtrain.data.preprocessors import Preprocessor
from gymtrain.models.contract import Model
from gymtrain_trackers.history import HistoryTracker


@register("model", "user_net")
class Net(nn.Module):
    """Told the shapes by gymtrain."""

    def __init__(self, input_shape: tuple[int, ...], output_size: int, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Linear(math.prod(input_shape), width)
        self.last = nn.Linear(width, output_size)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(rows.flatten(1)).relu())


class Everything(nn.Module):
    """What modules may have beside parameters: buffers of both kinds, a plain tensor, tied weights, batch norm."""

    def __init__(self, input_shape: tuple[int, ...], output_size: int, **options: Any) -> None:
        super().__init__()
        size = math.prod(input_shape)
        self.first = nn.Linear(size, size, bias=False)
        self.second = nn.Linear(size, size, bias=False)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(size)
        self.register_buffer("shift", torch.rand(size))
        self.register_buffer("directions", torch.randn(size), persistent=False)
        self.scale = torch.tensor(2.0)
        self.last = nn.Linear(size, output_size)
        self.widths = torch.linspace(0, 1, 3)[1].item() + options.get("offset", 0)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        rows = self.second(self.first(rows.flatten(1))) + self.shift * self.scale.to(rows.device)
        return self.last(self.norm(rows) * self.directions) * self.widths


class Half(nn.Module):
    """Parameters in bfloat16."""

    def __init__(self, input_shape: tuple[int, ...], output_size: int) -> None:
        super().__init__()
        self.last = nn.Linear(math.prod(input_shape), output_size, dtype=torch.bfloat16)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.last(rows.flatten(1).bfloat16())


class Lazy(nn.Module):
    """Takes its shapes from the first rows that it sees; is told nothing."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(5), nn.Tanh(), nn.LazyLinear(outputs))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.layers(rows)


class Nested:
    """Holds a class that is found by its qualified name."""

    class Net(Net):
        pass


class WithExtraState(Net):
    """Keeps something that is no tensor."""

    def get_extra_state(self) -> dict[str, int]:
        return {"seen": 1}

    def set_extra_state(self, state: dict[str, int]) -> None:
        pass


class WrongShape(nn.Module):
    """Always has three outputs."""

    def __init__(self, outputs: int = 3, flat: bool = False) -> None:
        super().__init__()
        self.layer = nn.LazyLinear(outputs)
        self.flat = flat

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        outputs = self.layer(rows.flatten(1))
        return outputs[:, 0] if self.flat else outputs


class Fails(nn.Module):
    def __init__(self, at: str = "constructor") -> None:
        super().__init__()
        if at == "constructor":
            raise KeyError("nothing there")
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        raise AttributeError("no such layer")


@register("model", "nearest_mean")
class NearestMean(Model):
    """Classes by the nearest mean: arrays, JSON values, no probabilities, no weights."""

    def fit(self, X, y):
        codes = np.unique(y)
        self.means = np.stack([X[y == code].mean(axis=0) for code in codes])
        self.count = len(X)

    def predict(self, X):
        return np.linalg.norm(X[:, None] - self.means, axis=2).argmin(axis=1)

    def save(self):
        return {"means": self.means, "count": self.count}

    def restore(self, state):
        assert isinstance(state["means"], np.ndarray)
        self.means, self.count = state["means"], state["count"]


class OnlyArrays(NearestMean):
    """Learns nothing but arrays, and has probabilities."""

    def predict_proba(self, X):
        distances = np.linalg.norm(X[:, None] - self.means, axis=2)
        return np.exp(-distances) / np.exp(-distances).sum(axis=1, keepdims=True)

    def save(self):
        return {"means": self.means}

    def restore(self, state):
        assert isinstance(state["means"], np.ndarray)
        self.means = state["means"]


class SkopsAndArrays(Model):
    """A scikit-learn object, an array and a value beside each other; for numbers."""

    def fit(self, X, y):
        from sklearn.linear_model import Ridge

        self.mean, self.rows = X.mean(axis=0), len(X)
        self.ridge = Ridge().fit(X - self.mean, y)

    def predict(self, X):
        return self.ridge.predict(X - self.mean)

    def save(self):
        from gymtrain.data.fitted import dump

        return {"mean": self.mean, "rows": self.rows, "skops": dump(self.ridge)}

    def restore(self, state):
        from gymtrain.data.fitted import load

        self.mean, self.rows, self.ridge = state["mean"], state["rows"], load(state["skops"])


class Odd(NearestMean):
    """Predicts what was never a class, or of a wrong shape, or cannot be saved."""

    def __init__(self, what: str = "code") -> None:
        self.what = what

    def predict(self, X):
        predicted = {"code": np.full(len(X), 7), "shape": np.zeros((len(X), 9))}
        return predicted.get(self.what, np.zeros(len(X), dtype=int))

    def save(self):
        return {"means": {1, 2}}


@register("preprocessor", "user_clip")
class Clip(Preprocessor):
    def __init__(self, low: float = 0.0) -> None:
        self.low = low

    def transform(self, X):
        return X.clip(self.low)


class Recording(Preprocessor):
    """Remembers what it was fitted on."""

    seen: ClassVar[np.ndarray | None] = None

    def fit(self, X, y):
        type(self).seen = X.copy()

    def transform(self, X):
        return X


class Failing(Preprocessor):
    def fit(self, X, y):
        raise ValueError("does not like them")

    def transform(self, X):
        return X


class FocalLoss:
    """A loss of one's own, for several classes."""

    def __init__(self, gamma: float = 2.0) -> None:
        self.gamma = gamma

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        each = nn.functional.cross_entropy(outputs, targets, reduction="none")
        return ((1 - (-each).exp()) ** self.gamma * each).mean()


class VectorLoss:
    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, targets, reduction="none")


class RaisingLoss:
    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("cannot be computed")


class Noise(Augmentor):
    """Remembers the draws of each call."""

    num_draws = 1
    seen: ClassVar[list[torch.Tensor]] = []

    def augment(self, images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        type(self).seen.append(draws.clone())
        return images + draws.view(-1, *[1] * (images.ndim - 1))


@register("tracker", "kept_history")
class KeptHistory(HistoryTracker):
    """What it was told outlives the run."""

    name = "kept_history"
    last: ClassVar[KeptHistory | None] = None

    def __init__(self) -> None:
        super().__init__()
        type(self).last = self


@register("tracker", "broken")
class Broken(HistoryTracker):
    """A store that is down."""

    name = "broken"

    def log_metrics(self, metrics) -> None:
        raise ConnectionError("the server is down")


@register("dataset", "user_rows")
class Rows:
    """Small rows whose targets are as asked for."""

    def __init__(self, task: str = "binary", rows: int = 40) -> None:
        self.task, self.rows = task, rows

    def load(self):
        return rows_of(self.task, self.rows)


def rows_of(task: str, rows: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return features (rows, 6) of at least 0.1, and targets that depend on them."""
    generator = np.random.default_rng(seed)
    X = generator.random((rows, 6)) * 4 + 0.1
    strengths = X @ generator.standard_normal((6, 3))
    targets = {
        "binary": np.array(["no", "yes"])[(strengths[:, 0] > np.median(strengths[:, 0])).astype(int)],
        "multiclass": np.argsort(np.argsort(strengths[:, 1])) * 3 // rows * 10,
        "multilabel": (strengths > np.median(strengths, axis=0)).astype(np.int64),
        "regression": strengths[:, 0],
        "regressions": strengths[:, :2],
    }
    return X, targets[task]


@register("loss", "user_loss")
def user_loss(outputs: torch.Tensor, targets: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """A loss that is a function, with an argument of its own."""
    return scale * nn.functional.mse_loss(outputs.flatten(), targets.flatten().to(outputs.dtype))


class Tied(nn.Module):
    """Two layers that share one weight."""

    def __init__(self, input_shape: tuple[int, ...], output_size: int) -> None:
        super().__init__()
        self.encode = nn.Linear(input_shape[0], input_shape[0], bias=False)
        self.decode = nn.Linear(input_shape[0], input_shape[0])
        self.decode.weight = self.encode.weight
        self.head = nn.Linear(input_shape[0], output_size)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.head(self.decode(self.encode(rows).relu()).relu())


class Normed(nn.Sequential):
    """A layer and its batch norm."""

    def __init__(self, input_shape: tuple[int, ...], output_size: int) -> None:
        super().__init__(nn.Linear(input_shape[0], 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, output_size))


class Images(nn.Sequential):
    """Convolution, batch norm and dropout: what a resumed training can get wrong."""

    def __init__(self, output_size: int) -> None:
        super().__init__(
            nn.Unflatten(1, (1, 8)),
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(4 * 36, output_size),
        )


class Interrupt(Callback):
    """Ends a training after a step, as a signal would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, state: Any) -> None:
        if state.step == self.step:
            raise KeyboardInterrupt
