"""The model spec: what learns, and how it is trained."""

from __future__ import annotations

import hashlib
import inspect
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pydantic

from gymtrain.errors import Fault, did_you_mean, some
from gymtrain.registry import ForeignClass, find_foreign
from gymtrain.specs.components import Absent, Component, check_component, is_postponing, now_or_later, reading
from gymtrain.specs.dataset import Seed
from gymtrain.specs.section import FaultsFound, Keyed, Section, fault, gathered, gathered_by_name, join
from gymtrain.specs.wording import shortened

ModelComponent = Annotated[Component, pydantic.PlainValidator(partial(check_component, "model"))]
_DEVICE = re.compile(r"auto|(cpu|cuda|mps)(:[0-9]{1,4})?")
Patterns = list[Annotated[str, pydantic.Field(min_length=1)]]
Precision = Literal["32", "bf16", "16", "bf16-true"]
OptimizerComponent = Annotated[Component, pydantic.PlainValidator(partial(check_component, "optimizer"))]

# Short names that everybody uses, and what torchmetrics calls them.
METRIC_ALIASES: dict[str, dict[str, Any]] = {
    "f1": {"type": "f1_score"},
    "mae": {"type": "mean_absolute_error"},
    "mape": {"type": "mean_absolute_percentage_error"},
    "mse": {"type": "mean_squared_error"},
    "r2": {"type": "r2_score"},
    "rmse": {"type": "mean_squared_error", "squared": False},
    "roc_auc": {"type": "auroc"},
}
LOSS_ALIASES = {
    "bce": "BCEWithLogitsLoss",
    "bce_with_logits": "BCEWithLogitsLoss",
    "cross_entropy": "CrossEntropyLoss",
    "huber": "HuberLoss",
    "l1": "L1Loss",
    "mae": "L1Loss",
    "mse": "MSELoss",
    "nll": "NLLLoss",
    "poisson_nll": "PoissonNLLLoss",
    "smooth_l1": "SmoothL1Loss",
}


@dataclass(frozen=True)
class Metric:
    """A metric under the name that its values are logged under."""

    name: str
    component: Component

    def to_dict(self) -> dict[str, Any]:
        """Return the metric as a spec on disk holds it."""
        return {**self.component.to_dict(), "name": self.name}


def _check_metric(value: Any) -> Metric:
    if isinstance(value, Metric):
        return value
    given = {"type": value} if isinstance(value, str) else value
    if not isinstance(given, dict):
        raise fault(f"got {shortened(given)}; expected a name such as 'accuracy', or {{'type': 'f1_score', …}}")
    rest = {key: item for key, item in given.items() if key != "name"}
    component = now_or_later("metric", rest, _metric_component)
    name = given.get("name", rest.get("type"))
    if not isinstance(name, str) or not name or "/" in name:
        raise fault(f"got {shortened(name)}; expected a word without '/'", "name")
    return Metric(name, component)


def _metric_component(given: dict[str, Any]) -> Component:
    kind = given.get("type")
    if isinstance(kind, str) and find_foreign("metric", kind) is None:
        given = {**given, **METRIC_ALIASES.get(kind, {})}
    return check_component("metric", given)


def _check_metrics(value: Any) -> list[Metric] | Literal["auto"]:
    if value == "auto":
        return "auto"
    if not isinstance(value, list):
        raise fault(f"got {shortened(value)}; expected a list such as ['accuracy', 'f1_score']")
    metrics = gathered(value, _check_metric)
    names = [metric.name for metric in metrics]
    twice = sorted({name for name in names if names.count(name) > 1} | ({"loss"} & set(names)))
    if twice:
        raise fault(f"two values would be logged as {some(twice)}; give each metric a 'name' of its own")
    return metrics


def _check_loss(value: Any) -> Component | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, Component):
        return value
    return now_or_later("loss", {"type": value} if isinstance(value, str) else value, _loss_component)


def _loss_component(given: Any) -> Component:
    if isinstance(given, dict) and isinstance(given.get("type"), str):
        name = given["type"]
        if find_foreign("loss", name) is None:
            # `cross_entropy` for CrossEntropyLoss, as in torch.nn.functional.
            longer = f"{name}_loss"
            name = longer if find_foreign("loss", longer) else LOSS_ALIASES.get(name, name)
        given = {**given, "type": name}
    return check_component("loss", given)


def _check_class_weight(value: Any) -> Any:
    if value is None or value == "balanced":
        return value
    if isinstance(value, dict) and value:
        keys = [str(key) for key in value]
        faults = [Fault(key, "stands twice, as text and as another type") for key in {*keys} if keys.count(key) > 1]
        faults += [
            Fault(str(key), f"got {shortened(weight)}; expected a number above 0")
            for key, weight in value.items()
            if not _is_weight(weight)
        ]
        if faults:
            raise FaultsFound(faults)
        return {str(key): float(weight) for key, weight in value.items()}
    raise fault(f"got {shortened(value)}; expected 'balanced', or a dict of weights by class")


def _check_lr_multipliers(value: Any) -> Any:
    if value is None:
        return None
    if not isinstance(value, dict) or not value:
        raise fault(
            f"got {shortened(value)}; expected a dict of factors by pattern, such as {{'stem.*': 0.1}}, or null"
        )
    odd = [name for name in value if not isinstance(name, str) or not name]
    faults = [Fault(repr(name), "unknown key; a pattern is a text such as 'stem.*'") for name in odd]
    faults += [
        Fault(str(name), f"got {shortened(factor)}; expected a number above 0; freeze is for what is not to be learned")
        for name, factor in value.items()
        if name not in odd and not _is_weight(factor)
    ]
    if faults:
        raise FaultsFound(faults)
    return {name: float(factor) for name, factor in value.items()}


def _as_text(value: Any) -> Any:
    """In YAML `precision: 32` is a number."""
    return str(value) if type(value) is int else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_weight(value: Any) -> bool:
    return _is_number(value) and 0 < value < float("inf")


def _check_schedule(value: Any) -> Any:
    """One schedule is for the learning rate; several are named by what they change."""
    if value is None:
        return None
    if isinstance(value, str) or callable(value) or (isinstance(value, dict) and "type" in value):
        value = {"lr": value}
    if not isinstance(value, dict):
        raise fault(
            f"got {shortened(value)}; expected a schedule such as {{'type': 'cosine'}}, or a dict of them by name"
        )
    checked = gathered_by_name(value, partial(check_component, "schedule"))
    schedules: dict[Any, Component] = dict(zip(value, checked, strict=True))
    if is_postponing():
        return schedules
    faults = [
        Fault(
            join(name, path, "type"), f"{member.type} of torch changes the learning rate alone; use a schedule of ours"
        )
        for name, schedule in schedules.items()
        for path, member in schedule.members()
        if name != "lr" and isinstance(member.target, ForeignClass)
    ]
    if faults:
        raise FaultsFound(faults)
    return schedules


class Checkpoint(Section):
    """How often training is written down so that it can be resumed; on a signal and on a failure it is in any case."""

    place: ClassVar[str] = "model.training.checkpoint"

    every_epochs: Annotated[int, pydantic.Field(ge=1)] | None = None
    """Epochs from one checkpoint to the next; 1 when nothing else says how often, and for `keep_best`."""
    every_steps: Annotated[int, pydantic.Field(ge=1)] | None = None
    """Optimizer steps from one checkpoint to the next, also within an epoch."""
    every_minutes: Annotated[float, pydantic.Field(gt=0)] | None = None
    """Minutes from one checkpoint to the next."""
    keep_last: Annotated[int, pydantic.Field(ge=1)] = 2
    """How many are kept; the oldest are deleted once a newer one is whole."""
    keep_best: Annotated[int, pydantic.Field(ge=0)] = 0
    """How many are kept beside these, of ends of epochs with the best values of the monitored metric."""

    @pydantic.model_validator(mode="after")
    def _resolve(self) -> Checkpoint:
        if self.every_epochs is None and (self.keep_best or self.every_steps is self.every_minutes is None):
            object.__setattr__(self, "every_epochs", 1)
        return self


class Ema(Section):
    """The exponential moving average of the weights, which is then what is validated, kept and saved."""

    place: ClassVar[str] = "model.training.ema"

    decay: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.999
    """How much of the average stays at each step."""
    warmup: bool = True
    """Let the decay begin small, because the first weights are random."""


class EarlyStopping(Section):
    """When training ends because a metric no longer gets better."""

    place: ClassVar[str] = "model.training.early_stopping"

    monitor: str = "auto"
    """The metric; `"auto"` is the one that training monitors, else `train/loss`."""
    mode: Literal["min", "max"] | None = None
    """Whether less or more is better; null for what the metric says of itself."""
    patience: Annotated[int, pydantic.Field(ge=0)] = 10
    """How many epochs without a better value are borne."""
    min_delta: Annotated[float, pydantic.Field(ge=0)] = 0.0
    """How much better counts, in the metric's own unit."""
    threshold: float | None = None
    """Stop once the metric is as good as this."""
    divergence_ratio: Annotated[float, pydantic.Field(gt=1)] | None = None
    """Stop when a metric of which less is better is this many times its best value."""


_PICKLES = {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"}


class StartFrom(Section):
    """The weights that training begins with, instead of random ones: those of a file of safetensors, or of a bundle.

    The file is read when training begins, and never again: a bundle holds what was learned.
    """

    place: ClassVar[str] = "model.training.start_from"

    path: Annotated[str, pydantic.Field(min_length=1)]
    """Where the file lies."""
    prefix: str = ""
    """What the names in the file begin with and those of the model do not; other tensors in the file are left out."""
    replace: Patterns = []
    """Patterns such as `"head.*"` of tensors that are made anew, whatever the file has for them."""
    strict: bool = False
    """Whether a tensor that only one of the two has, or in another shape, is an error; else it is made anew, or left
    out, and a warning says which."""
    sha256: str | None = None
    """The digest that the file must have, in hexadecimal; what it has when the spec is made, where it is not given."""

    @pydantic.model_validator(mode="after")
    def _resolve(self) -> StartFrom:
        path = Path(self.path).expanduser()
        if path.suffix.lower() in _PICKLES:
            raise fault(
                f"got {self.path!r}; such files hold pickles, which run code when they are read; expected safetensors "
                f"or a bundle: write the tensors anew with safetensors.torch.save_file",
                "path",
            )
        if self.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise fault(f"got {shortened(self.sha256)}; expected the 64 hexadecimal digits of a SHA-256", "sha256")
        if self.sha256 is None and reading.get() is None:
            object.__setattr__(self, "sha256", _sha256(path, self.path))
        return self


def _sha256(path: Path, given: str) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise fault(f"{given!r} cannot be read: {error.strerror}", "path") from error


def _as_path(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


class Training(Section):
    """How a model is fitted."""

    place: ClassVar[str] = "model.training"

    epochs: Annotated[int, pydantic.Field(ge=1)] | None = None
    """Passes over the train part; 10 when `max_steps` is not given either."""
    max_steps: Annotated[int, pydantic.Field(ge=1)] | None = None
    """Optimizer steps, whichever of the two ends first."""
    steps_per_epoch: Annotated[int, pydantic.Field(ge=1)] | None = None
    """Optimizer steps in an epoch; null for one pass over the train part."""
    batch_size: Annotated[int, pydantic.Field(ge=1)] = 32
    """Rows in a batch."""
    accumulate: Annotated[int, pydantic.Field(ge=1)] = 1
    """Batches in a step of the optimizer, whose gradients are summed so that every row counts the same."""
    optimizer: OptimizerComponent = "Adam"  # type: ignore[assignment]
    """Any optimizer of `torch.optim` by name, with its own arguments."""
    schedule: Annotated[Any, pydantic.PlainValidator(_check_schedule)] = None
    """How the learning rate changes, `{"type": "cosine"}`, or several values by name: of the optimizer, or keywords of
    the model's own training step."""
    clip_grad_norm: Annotated[float, pydantic.Field(gt=0)] | None = None
    """Scale gradients down whose norm, over all parameters together, is above this."""
    clip_grad_value: Annotated[float, pydantic.Field(gt=0)] | None = None
    """Cut off elements of gradients that are larger than this, in either direction."""
    precision: Annotated[Precision, pydantic.BeforeValidator(_as_text)] = "32"
    """Bits: `"bf16"` and `"16"` (with a scaler) for matrix products and convolutions in training, `"bf16-true"` for all
    weights."""
    compile: bool = False
    """Compile the training step with `torch.compile`, which takes a while first."""
    ema: Annotated[Ema, Keyed] | None = None
    """Keep an exponential moving average of the weights; null for none."""
    start_from: Annotated[Annotated[StartFrom, Keyed] | None, pydantic.BeforeValidator(_as_path)] = None
    """The weights to begin with, as the path of a file or a dict; null for random ones."""
    freeze: Patterns = []
    """Patterns such as `"stem.*"` of the names of tensors that are not learned."""
    unfreeze_at_epoch: Annotated[int, pydantic.Field(ge=2)] | None = None
    """The epoch from which what is frozen is learned after all; null for never."""
    lr_multipliers: Annotated[Any, pydantic.PlainValidator(_check_lr_multipliers)] = None
    """By patterns of names, as in `{"stem.*": 0.1}`, how much of the learning rate parameters take: the product of the
    factors of all patterns that match; null for all of it."""
    early_stopping: Annotated[EarlyStopping, Keyed] | None = None
    """When to stop before the last epoch; null for never."""
    checkpoint: Annotated[Checkpoint, Keyed] | None = None
    """How often to write a checkpoint, from which `train(resume="auto")` goes on; null for never."""
    loss: Annotated[Any, pydantic.PlainValidator(_check_loss)] = "auto"
    """A loss that fits the task, by its name in `torch.nn`; `"auto"` is the task's usual one."""
    metrics: Annotated[Any, pydantic.PlainValidator(_check_metrics)] = "auto"
    """Metrics of torchmetrics by name; `"auto"` is the task's usual ones."""
    validation_split: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.0
    """The fraction of the train part that is held out to choose the best epoch, where `samples.val` is not given."""
    validate_every_epochs: Annotated[int, pydantic.Field(ge=1)] = 1
    """Epochs from one validation to the next; the last epoch is always validated."""
    validate_every_steps: Annotated[int, pydantic.Field(ge=1)] | None = None
    """Optimizer steps from one validation to the next within an epoch; null for none."""
    sampling: Literal["shuffle", "balanced", "weighted"] = "shuffle"
    """Which rows a pass goes through: `"shuffle"` each once; `"balanced"` and `"weighted"` as many, drawn with
    replacement, so that the classes are equally frequent, or by `sample_weight`, which then does not weigh the loss."""
    class_weight: Annotated[Any, pydantic.PlainValidator(_check_class_weight)] = None
    """The weight of each class in the loss: a dict by label, or `"balanced"`."""
    monitor: str | None = "auto"
    """The metric whose best epoch gives the weights that are kept: `"auto"` is `val/loss` where there are validation
    rows; null keeps the last."""
    device: str = "auto"
    """`"auto"` (cuda, then mps, then cpu) or a device of torch such as `"cuda:1"`."""
    workers: Annotated[int, pydantic.Field(ge=0)] = 0
    """Processes that gather and augment batches beside the training, for slow augmentors; 0 for none."""
    worker_timeout: Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)] = 300.0
    """Seconds after which a batch that does not come from a worker is an error."""
    deterministic: bool = False
    """Use deterministic algorithms alone, which are slower on a GPU; on a CPU results are the same from run to run in
    any case."""
    seed: Seed = 0
    """Decides the first weights and the dropout."""

    @pydantic.model_validator(mode="after")
    def _resolve(self) -> Training:
        if self.epochs is None and self.max_steps is None:
            object.__setattr__(self, "epochs", 10)
        if self.ema is not None and self.precision == "bf16-true":
            raise fault(
                "an average in 16 bits stands still, because its steps are rounded away; use precision 'bf16'", "ema"
            )
        if self.unfreeze_at_epoch is not None and not self.freeze:
            raise fault("nothing is frozen; give freeze too, or leave it out", "unfreeze_at_epoch")
        if self.monitor is None and self.checkpoint is not None and self.checkpoint.keep_best:
            raise fault(
                "keeps the best by the monitored metric, and monitor is null; give one or leave it out",
                "checkpoint.keep_best",
            )
        return self

    @pydantic.field_validator("device")
    @classmethod
    def _check_device(cls, value: str) -> str:
        if not _DEVICE.fullmatch(value):
            raise fault(f"got {value!r}; expected 'auto', 'cpu', 'cuda', 'mps' or a device such as 'cuda:1'")
        return value

    @pydantic.field_validator("monitor")
    @classmethod
    def _check_monitor(cls, value: str | None) -> str | None:
        if value is not None and value != "auto" and not value.startswith(("train/", "val/")):
            raise fault(f"got {value!r}; expected 'auto', null, or a metric such as 'val/loss' or 'val/accuracy'")
        return value


class Model(Section):
    """The model spec.

    Example:
        >>> Model(model={"type": "mlp", "hidden": [64]}, training={"epochs": 5}).training.batch_size
        32
        >>> Model(model={"type": "mlp", "hiden": [64]}, training={"batch_size": 0})
        Traceback (most recent call last):
        gymtrain.errors.SpecError: 2 problems in the spec:
          model.model.hiden: unknown key; did you mean 'hidden'?
          model.training.batch_size: got 0; expected an integer of at least 1
    """

    place: ClassVar[str] = "model"

    model: ModelComponent
    """What learns: `{"type": "mlp"}`, `{"type": "sklearn", "estimator": …}`, or a class of yours."""
    # Made when it is needed: its defaults are looked up in torch, which is not there where bundles are only looked at.
    training: Annotated[Training, Keyed] = pydantic.Field(default_factory=Training)
    """How it is fitted."""

    @pydantic.model_validator(mode="after")
    def _check_scheduled(self) -> Model:
        """Only what the optimizer has, or the model's own training step takes, can change."""
        if not self.training.schedule or is_postponing():
            return self
        optimizer = self.training.optimizer
        numbers = [name for name, value in optimizer.arguments.items() if _is_number(value)]
        keywords = _training_step_keywords(self.model)
        if keywords is None:
            return self
        unknown = [name for name in self.training.schedule if name not in {*numbers, *keywords}]
        if unknown:
            takes = f"; the training step of {self.model.type} takes {some(keywords, limit=20)}" if keywords else ""
            has = f"; it has {some(sorted(numbers), limit=20)}{takes}"
            hint = did_you_mean(unknown[0], [*numbers, *keywords]) or has
            raise fault(f"{optimizer.type} has no value {unknown[0]!r} that can change{hint}", "training.schedule")
        return self


def _training_step_keywords(model: Component) -> list[str] | None:
    """Return what a model's own training step takes beside the batch; None where it takes anything, or is absent."""
    if isinstance(model.target, Absent):
        return None
    step = getattr(model.target, "training_step", None) if isinstance(model.target, type) else None
    if step is None:
        return []
    parameters = list(inspect.signature(step).parameters.values())[2:]  # after `self` and `batch`
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return None
    return [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
