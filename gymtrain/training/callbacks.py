"""Callbacks: a method for each thing that happens, called from one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gymtrain.errors import CallbackError, Fault, SpecError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

STAGES = (
    "download_and_prepare_data",
    "load_data",
    "fit_preprocessors",
    "transform_data",
    "augment_data",
    "fit_model",
    "evaluate_model",
)


@dataclass
class TrainingState:
    """Where training stands; every hook is given it.

    Args:
        num_epochs: How many epochs are planned; None when only the steps are.
        num_steps: How many optimizer steps are planned.
        epoch: The epoch that is running or was the last, from 1; 0 before the first.
        step: The optimizer steps that have been taken.
        loss: The loss of the last of them, a tensor of shape () on the device: reading it waits for the device.
        metrics: The metrics of the last epoch, such as `{"train/loss": 0.3}`; the test metrics join them at the end.
        elapsed: Seconds by stage, for those that are over.
        stop_reason: Why training is to stop; None to go on.
        exception: What ended training, while `on_exception` is called.
        values: What is scheduled, and the learning rate, as they are now.
        was_validated: Whether the model was validated at the end of this epoch; None where there are no rows for it.
        data_seconds: How long it has taken, in this training, to gather and to augment batches.
        wants_checkpoint: Whether a checkpoint was asked for that is not written yet.
    """

    num_epochs: int | None = None
    num_steps: int = 0
    epoch: int = 0
    step: int = 0
    loss: Tensor | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    elapsed: dict[str, float] = field(default_factory=dict)
    stop_reason: str | None = None
    exception: BaseException | None = None
    values: dict[str, float] = field(default_factory=dict)
    was_validated: bool | None = None
    data_seconds: float = 0.0
    wants_checkpoint: bool = False
    logged: list[tuple[str, float, int]] = field(default_factory=list, repr=False)

    def stop(self, reason: str = "callback") -> None:
        """Ask for training to stop after the step or the epoch that is running."""
        self.stop_reason = reason

    def checkpoint(self) -> None:
        """Ask for a checkpoint once all callbacks were called; without `training.checkpoint` there are none."""
        self.wants_checkpoint = True

    def log(self, name: str, value: float) -> None:
        """Log a value of this step, as `batch/<name>`; a metric of an epoch is put into `metrics` in `on_epoch_end`."""
        self.logged.append((name, float(value), self.step))


class Callback:
    """Base for callbacks: override the hooks that you want, the others cost nothing.

    Beside the hooks below there are `on_<stage>_begin` and `on_<stage>_end` for each stage of training:
    `download_and_prepare_data`, `load_data`, `fit_preprocessors`, `transform_data`, `augment_data`, `fit_model` and
    `evaluate_model`. `…_end` is called for a stage that failed too.

    Example:
        >>> class StopWhenGood(Callback):
        ...     def on_epoch_end(self, state):
        ...         if state.metrics["train/loss"] < 0.1:
        ...             state.stop("good enough")
    """

    def on_train_begin(self, state: TrainingState) -> None:
        """Training begins."""

    def on_train_end(self, state: TrainingState) -> None:
        """Training is over, also after an error."""

    def on_epoch_begin(self, state: TrainingState) -> None:
        """An epoch begins."""

    def on_epoch_end(self, state: TrainingState) -> None:
        """An epoch is over; `state.metrics` holds its metrics, and what is put there is logged with them."""

    def on_validation_end(self, state: TrainingState) -> None:
        """The model was validated, in the middle of an epoch or at its end; `state.metrics` holds what came out."""

    def on_step_end(self, state: TrainingState) -> None:
        """An optimizer step was taken."""

    def on_exception(self, state: TrainingState) -> None:
        """Something raised; `state.exception` is it. Training ends in any case."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in vars(cls):
            if name.startswith("on_") and name not in HOOKS:
                raise SpecError([Fault(f"{cls.__name__}.{name}", f"there is no such hook{did_you_mean(name, HOOKS)}")])


def _nothing(self: Callback, state: TrainingState) -> None:
    """Nothing happens."""


for _stage in STAGES:
    setattr(Callback, f"on_{_stage}_begin", _nothing)
    setattr(Callback, f"on_{_stage}_end", _nothing)

HOOKS = tuple(name for name in dir(Callback) if name.startswith("on_"))


class Callbacks:
    """Several callbacks, called in the order given.

    Args:
        callbacks: Objects with hooks.
        state: What they are given.

    Raises:
        SpecError: It is no list, or something in it is no callback.
    """

    def __init__(self, callbacks: Sequence[Any], state: TrainingState) -> None:
        self.state = state
        if not isinstance(callbacks, list | tuple):
            raise SpecError([Fault("callbacks", f"got {callbacks!r}; expected a list of callbacks")])
        faults = [
            Fault(
                f"callbacks[{position}]",
                f"got {callback!r}; expected an object of a class derived from gymtrain.Callback",
            )
            for position, callback in enumerate(callbacks)
            if not isinstance(callback, Callback)
        ]
        if faults:
            raise SpecError(faults)
        self._callbacks: list[Callback] = []
        self._table: dict[str, list[Callback]] = {hook: [] for hook in HOOKS}
        for callback in callbacks:
            self.append(callback)

    def append(self, callback: Callback) -> None:
        """Take in one more, to be called after the others."""
        self._callbacks.append(callback)
        for hook, called in self._table.items():
            if getattr(type(callback), hook) is not getattr(Callback, hook):
                called.append(callback)

    def call(self, hook: str) -> None:
        """Call a hook of every callback that has it.

        Raises:
            CallbackError: A callback raised; the cause is chained.
        """
        for callback in self._table[hook]:
            try:
                getattr(callback, hook)(self.state)
            except Exception as error:
                raise CallbackError(f"{hook} of the callback {type(callback).__name__} failed: {error}") from error

    def call_after(self, error: BaseException, hook: str) -> None:
        """Call a hook while an error ends training: one that fails too is noted on the error, and hides nothing."""
        try:
            self.call(hook)
        except CallbackError as failure:
            error.add_note(str(failure))

    def state_dict(self) -> dict[str, Any]:
        """Return the state of those that have one, by their class and their place among those of the class.

        Raises:
            CallbackError: A callback raised; the cause is chained.
        """
        states = {}
        for name, callback in self._with_state():
            try:
                states[name] = callback.state_dict()
            except Exception as error:
                raise CallbackError(f"state_dict of the callback {type(callback).__name__} failed: {error}") from error
        return states

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Give back their state to those that are there again; a new one begins anew.

        Raises:
            CallbackError: A callback raised; the cause is chained.
        """
        for name, callback in self._with_state():
            if name not in state:
                continue
            try:
                callback.load_state_dict(state[name])
            except Exception as error:
                kind = type(callback).__name__
                raise CallbackError(f"load_state_dict of the callback {kind} failed: {error}") from error

    def _with_state(self) -> Iterator[tuple[str, Any]]:
        seen: dict[str, int] = {}
        for callback in self._callbacks:
            if hasattr(callback, "state_dict") and hasattr(callback, "load_state_dict"):
                name = type(callback).__name__
                seen[name] = seen.get(name, 0) + 1
                yield f"{name} {seen[name]}", callback
