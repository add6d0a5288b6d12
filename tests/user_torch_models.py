"""What users bring: torch modules that say themselves how they learn."""

from __future__ import annotations

import os
import signal
from typing import Any, ClassVar

import torch
from torch import nn

from gymtrain.models.torch_model import TorchModel


def layers(input_shape: tuple[int, ...], output_size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(input_shape[0], 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, output_size)
    )


class Ordinary(nn.Module):
    """An ordinary module."""

    def __init__(self, input_shape: tuple[int, ...], output_size: int) -> None:
        super().__init__()
        self.body = layers(input_shape, output_size)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.body(rows)


class WithNothing(Ordinary):
    """Has a parameter without elements, as a layer of width 0 has."""

    def __init__(self, input_shape: tuple[int, ...], output_size: int) -> None:
        super().__init__(input_shape, output_size)
        self.nothing = nn.Parameter(torch.empty(0, 3))


class Default(TorchModel):
    """The same layers, and every method as it is."""

    def __init__(self, input_shape: tuple[int, ...], output_size: int) -> None:
        super().__init__()
        self.body = layers(input_shape, output_size)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.body(rows)


class Told(Default):
    """Writes down what it is set up with."""

    seen: ClassVar[list[tuple[str, int, int]]] = []

    def setup(self, task: Any) -> None:
        type(self).seen.append((task.name, task.output_size, sum(1 for _ in self.parameters())))
        self.scale = nn.Parameter(torch.full((task.output_size,), 2.0))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.body(rows) * self.scale


class Noisy(Default):
    """Learns from rows with noise, and tells how large they were."""

    def training_step(self, batch: Any, *, noise: float = 0.1) -> dict[str, torch.Tensor]:
        loss = self.loss_of(self(batch.inputs + noise * torch.randn_like(batch.inputs)), batch.targets)
        return {"loss": loss, "first": batch.inputs[:, 0].mean(), "noise": torch.zeros(()) + noise}


class Validating(Default):
    """Has steps of its own for rows that it does not learn from."""

    def __init__(self, input_shape: tuple[int, ...], output_size: int, leave_out: str = "") -> None:
        super().__init__(input_shape, output_size)
        self.leave_out = leave_out

    def validation_step(self, batch: Any) -> dict[str, torch.Tensor]:
        outputs = self(batch.inputs)
        values = {
            "outputs": outputs,
            "loss": 2.0 * self.loss_of(outputs, batch.targets),
            "size": outputs.abs().mean(),
            "drawn": torch.rand(()),
        }
        return {name: value for name, value in values.items() if name != self.leave_out}

    def test_step(self, batch: Any) -> torch.Tensor:
        return self(batch.inputs)


class Measuring(Noisy):
    """Gives numbers of its own for the rows that it learns from and for those that it does not."""

    def validation_step(self, batch: Any) -> dict[str, torch.Tensor]:
        outputs = self(batch.inputs)
        return {"outputs": outputs, "size": outputs.abs().mean(), "first": batch.inputs[:, 0].mean()}


class Interrupted(Validating):
    """Is sent a signal while it is validated for the so-and-so-manyth time."""

    validations_left: ClassVar[int] = 0

    def validation_step(self, batch: Any) -> dict[str, torch.Tensor]:
        Interrupted.validations_left -= 1
        if Interrupted.validations_left == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return super().validation_step(batch)


class Groups(Default):
    """Learns ten times more slowly in front than in the end."""

    last: ClassVar[torch.optim.Optimizer | None] = None

    def configure_optimizer(self, make: Any) -> torch.optim.Optimizer:
        front, end = self.body[0], self.body[1:]
        made = make([{"params": front.parameters(), "lr": 0.001}, {"params": end.parameters(), "lr": 0.01}])
        type(self).last = made
        return made


class Gan(TorchModel):
    """Classes as outputs, and beside them a tiny generator of rows whose critic tells them from real ones."""

    def __init__(self, input_shape: tuple[int, ...], output_size: int) -> None:
        super().__init__()
        size = input_shape[0]
        self.head = nn.Linear(size, output_size)
        self.generator = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, size))
        self.critic = nn.Sequential(nn.Linear(size, 5), nn.Tanh(), nn.Linear(5, 1))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.head(rows)

    def training_step(self, batch: Any) -> dict[str, torch.Tensor]:
        made = self.generator(torch.randn(len(batch.inputs), 2))
        real, fake = self.critic(batch.inputs), self.critic(made)
        critic = (nn.functional.softplus(-real) + nn.functional.softplus(fake)).mean()
        generator = nn.functional.softplus(-fake).mean()
        classes = self.loss_of(self(batch.inputs), batch.targets)
        return {"critic": critic, "generator": generator, "classes": classes, "fake": fake.mean()}

    def configure_optimizer(self, make: Any) -> dict[str, torch.optim.Optimizer]:
        return {
            "generator": make(self.generator.parameters(), lr=0.02),
            "critic": torch.optim.SGD(self.critic.parameters(), lr=0.1, momentum=0.5),
            "classes": make(self.head.parameters()),
        }


class Still(Gan):
    """The same without chance, so that a loss of many rows is the mean of those of few."""

    def training_step(self, batch: Any) -> dict[str, torch.Tensor]:
        made = self.critic(self.generator(batch.inputs[:, :2]))
        return {
            "critic": (made - self.critic(batch.inputs)).square().mean(),
            "generator": made.square().mean(),
            "classes": self.loss_of(self(batch.inputs), batch.targets),
        }


class Halved(Default):
    """Has a part that no prediction needs."""

    def __init__(self, input_shape: tuple[int, ...], output_size: int) -> None:
        super().__init__(input_shape, output_size)
        self.decoder = nn.Linear(output_size, input_shape[0])

    def training_step(self, batch: Any) -> torch.Tensor:
        outputs = self(batch.inputs)
        return self.loss_of(outputs, batch.targets) + (self.decoder(outputs) - batch.inputs).square().mean()

    def final_state(self) -> dict[str, Any]:
        return {name: each for name, each in self.state_dict().items() if not name.startswith("decoder")}


class Choosing(Default):
    """Takes the second epoch for the best one, and stops after so many."""

    def __init__(self, input_shape: tuple[int, ...], output_size: int, epochs: int = 4) -> None:
        super().__init__(input_shape, output_size)
        self.register_buffer("epochs", torch.tensor(epochs))
        self.told: list[tuple[list[str], list[str]]] = []

    def has_improved(self, metrics: Any, best: Any) -> bool:
        self.told.append((sorted(metrics), sorted(best)))
        return len(self.told) == 2

    def should_stop(self, metrics: Any) -> bool:
        self.epochs -= 1
        return bool(self.epochs == 0)


class Wrong(Default):
    """Returns what it should not, from the method given."""

    def __init__(self, input_shape: tuple[int, ...], output_size: int, method: str, what: str) -> None:
        super().__init__(input_shape, output_size)
        self.method, self.what = method, what

    def _returned(self, method: str, usual: Any) -> Any:
        if method != self.method:
            return usual
        if self.what == "raises":
            raise KeyError("nothing there")
        return {
            "none": None,
            "empty": {},
            "number": {"loss": 1.0},
            "vector": torch.zeros(3),
            "detached": torch.zeros(()),
            "unknown": {"lss": usual},
            "outputs": {"outputs": torch.zeros(2, 7)},
            "names": {"other": torch.zeros(3)},
            "halves": {name: each.half() for name, each in nn.Module.state_dict(self).items()},
        }[self.what]

    def setup(self, task: Any) -> None:
        self._returned("setup", None)

    def training_step(self, batch: Any) -> Any:
        return self._returned("training_step", super().training_step(batch))

    def validation_step(self, batch: Any) -> Any:
        return self._returned("validation_step", super().validation_step(batch))

    def test_step(self, batch: Any) -> Any:
        return self._returned("test_step", super().validation_step(batch))

    def configure_optimizer(self, make: Any) -> Any:
        return self._returned("configure_optimizer", super().configure_optimizer(make))

    def final_state(self) -> Any:
        return self._returned("final_state", self.state_dict())

    def has_improved(self, metrics: Any, best: Any) -> Any:
        return self._returned("has_improved", None)

    def should_stop(self, metrics: Any) -> Any:
        return self._returned("should_stop", False)
