"""Tasks: the one place that decides loss, activation, shape of the targets and decoding, so that they always agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from gymtrain.errors import DataError, SpecError, TaskError, did_you_mean, some
from gymtrain.models.losses import build_loss, is_own, misfit, own_loss, weighted_mean
from gymtrain.specs.components import Component

if TYPE_CHECKING:
    import torch

    from gymtrain.models.losses import Loss

Array = npt.NDArray[Any]


class Task:
    """What is to be predicted.

    A model's outputs are raw: logits for classes, numbers for a regression. *Scores* are what they mean:
    probabilities, or the numbers. *Targets* are what the loss compares the outputs with.
    """

    name: ClassVar[str]
    losses: ClassVar[tuple[str, ...]]
    """The losses of torch.nn that fit, the usual one first."""
    metrics: ClassVar[tuple[str, ...]]
    """The usual metrics."""
    activates_alike: ClassVar[bool] = False
    """Whether `activate` gives a row the same bits among any number of rows."""
    output_size: int
    """How many outputs a model needs."""

    @property
    def has_probabilities(self) -> bool:
        """Whether there are classes to have a probability."""
        return True

    @property
    def classes(self) -> Array:
        """The labels, in the order of the columns of `predict_proba`."""
        raise NotImplementedError

    def encode(self, y: Array) -> Array:
        """Turn labels into targets."""
        raise NotImplementedError

    def codes(self, targets: Array) -> Array:
        """Turn targets into what models of other libraries and preprocessors take: for classes int64 codes (rows,)."""
        return targets

    def shares(self, targets: Array) -> Array:
        """Turn targets into numbers that can be mixed: for classes the share of each, or of the second of two."""
        return targets

    def activate(self, outputs: torch.Tensor) -> torch.Tensor:
        """Turn outputs of shape (rows, output_size) into scores."""
        raise NotImplementedError

    def decode(self, scores: Array) -> Array:
        """Turn scores into labels."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return what `schema.json` holds under `labels`."""
        raise NotImplementedError

    def loss(
        self,
        component: Component | str,
        class_weight: Array | None = None,
        device: torch.device | str = "cpu",
        *,
        weighted: bool = False,
        mixed: bool = False,
    ) -> Loss:
        """Return the loss: a function of outputs (rows, output_size) and targets whose value is a mean over the rows.

        Args:
            component: The loss of the spec; `"auto"` is the usual one. For one of the user's, `build` returns what is
                called with outputs and targets.
            class_weight: The weight of each class, float32 in the order of `classes`; None for equal ones.
            device: Where outputs and targets lie.
            weighted: Return a function of outputs, targets and weights, float32 (rows,) of at least 0, whose value is
                the mean over the rows, each counted as its weight (times that of its class) says; 0 where none counts.
            mixed: Targets are mixtures of what `shares` returns.

        Raises:
            SpecError: The loss does not fit the task, cannot be weighed, or cannot take mixtures.
        """
        if class_weight is not None:
            raise no_classes(self)
        return self._mean_loss(component, device, weighted)

    def _mean_loss(self, component: Component | str, device: torch.device | str, weighted: bool) -> Loss:
        """Return the mean over the rows of a loss that weighs no classes."""
        if is_own(component):
            return own_loss(self._build_loss(component, device), component.type, weighted=weighted)
        if not weighted:
            return self._build_loss(component, device)  # type: ignore[no-any-return]
        each = self._build_loss(component, device, reduction="none")
        return lambda outputs, targets, weights: weighted_mean(each(outputs, targets), weights)

    def _build_loss(self, component: Component | str, device: torch.device | str, **arguments: Any) -> Any:
        return build_loss(component, self.name, self.losses, device, **arguments)

    def metric_arguments(self) -> dict[str, Any]:
        """Return what torchmetrics needs to be told."""
        return {"task": self.name}

    def metric_inputs(self, scores: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores and targets as torchmetrics takes them."""
        return scores, targets


def no_classes(task: Task) -> SpecError:
    """Return the error for class weights where there are no classes."""
    return misfit("class_weight", f"a {task.name} task has no classes to weigh; leave it out")


class _Classes(Task):
    """What binary and multiclass have in common: labels, one for each row."""

    def __init__(self, classes: Sequence[Any] | Array, *, one_hot: bool = False) -> None:
        self._classes = as_labels(classes)
        self.one_hot = one_hot
        self._codes = {label: code for code, label in enumerate(self._classes.tolist())}

    @property
    def classes(self) -> Array:
        """The labels, sorted."""
        return self._classes

    def encode(self, y: Array) -> Array:
        """Return int64 codes of shape (rows,); with `one_hot` float32 of shape (rows, classes).

        Raises:
            DataError: A label was not there in training, or a row has several.
        """
        if y.ndim != 1:
            raise DataError(f"y has the shape {y.shape}; expected (rows,), a label for each row")
        labels = y.tolist()
        codes = np.fromiter((self._codes.get(label, -1) for label in labels), dtype=np.int64, count=len(labels))
        if (codes < 0).any():
            unseen = sorted({label for label, code in zip(labels, codes, strict=True) if code < 0}, key=repr)
            raise DataError(f"the labels {some(unseen)} are not among those of the training data, {some(self._codes)}")
        return np.eye(len(self._codes), dtype=np.float32)[codes] if self.one_hot else codes

    def codes(self, targets: Array) -> Array:
        """Return int64 codes of shape (rows,), whatever the loss is given."""
        return targets.argmax(axis=1) if self.one_hot else targets

    def decode(self, scores: Array) -> Array:
        """Return the most probable label of each row."""
        labels: Array = self._classes[scores.argmax(axis=1)]
        return labels

    def to_dict(self) -> dict[str, Any]:
        """Return the task and its labels."""
        return {"task": self.name, **_written(self._classes), "one_hot": self.one_hot}

    def weights(self, class_weight: Mapping[str, float]) -> Array:
        """Return the weight of each class, float32 in the order of `classes`; 1 where none is given.

        Args:
            class_weight: Weights by label, as text.

        Raises:
            SpecError: A class that is weighed does not exist.
        """
        by_text = {str(label): code for label, code in self._codes.items()}
        unknown = [label for label in class_weight if label not in by_text]
        if unknown:
            hint = did_you_mean(unknown[0], by_text)
            raise misfit(
                "class_weight", f"there is no class {some(unknown)}{hint}; the classes are {some(self._codes)}"
            )
        weights = np.ones(len(self._codes), dtype=np.float32)
        for label, weight in class_weight.items():
            weights[by_text[label]] = weight
        return weights


class Binary(_Classes):
    """Two classes: one logit, whose sigmoid is the probability of the second."""

    name = "binary"
    losses = ("BCEWithLogitsLoss",)
    metrics = ("accuracy",)
    output_size = 1

    def loss(
        self,
        component: Component | str,
        class_weight: Array | None = None,
        device: torch.device | str = "cpu",
        *,
        weighted: bool = False,
        mixed: bool = False,
    ) -> Loss:
        """Return the loss on the logit; targets are codes (rows,) or one-hot rows (rows, 2)."""
        import torch

        if class_weight is None:
            return self._on_logits(self._mean_loss(component, device, weighted))
        each = self._build_loss(component, device, reduction="none")
        by_class = torch.from_numpy(class_weight).to(device)

        def of_classes(
            outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | float = 1.0
        ) -> torch.Tensor:
            return weighted_mean(each(outputs, targets), by_class[targets.long()] * weights)

        def of_shares(
            outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | float = 1.0
        ) -> torch.Tensor:
            first, second = (1 - targets) * by_class[0], targets * by_class[1]
            losses = first * each(outputs, torch.zeros_like(outputs)) + second * each(outputs, torch.ones_like(outputs))
            weights = torch.ones_like(outputs) * weights
            return weighted_mean(losses, weights, (first + second) * weights)

        return self._on_logits(of_shares if mixed else of_classes)

    def shares(self, targets: Array) -> Array:
        """Return float32 of the shape of the targets."""
        return targets.astype(np.float32)

    def _on_logits(self, loss: Loss) -> Loss:
        one_hot = self.one_hot

        def of_logits(outputs: torch.Tensor, targets: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
            positive = targets[:, 1] if one_hot else targets
            return loss(outputs.squeeze(1), positive.to(outputs.dtype), *weights)

        return of_logits

    def activate(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return probabilities (rows, 2)."""
        import torch

        positive = outputs.sigmoid()
        return torch.cat([1.0 - positive, positive], dim=1)

    def metric_inputs(self, scores: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the probability of the second class, and codes."""
        return scores[:, 1], targets[:, 1].long() if targets.ndim == 2 else targets


class Multiclass(_Classes):
    """Several classes, one of which is right: a logit for each."""

    name = "multiclass"
    losses = ("CrossEntropyLoss", "NLLLoss")
    metrics = ("accuracy",)
    activates_alike = True

    @property
    def output_size(self) -> int:  # type: ignore[override]
        """One for each class."""
        return len(self._classes)

    def loss(
        self,
        component: Component | str,
        class_weight: Array | None = None,
        device: torch.device | str = "cpu",
        *,
        weighted: bool = False,
        mixed: bool = False,
    ) -> Loss:
        """Return the loss on the logits; targets are codes (rows,) or one-hot rows (rows, classes)."""
        import torch

        if mixed and not (is_own(component) and self.one_hot):
            return self._loss_of_shares(component, class_weight, device)
        if weighted and not is_own(component):
            loss = self._weighted_loss(component, class_weight, device)
        elif class_weight is None:
            loss = self._mean_loss(component, device, weighted)
        else:
            loss = self._build_loss(component, device, weight=torch.from_numpy(class_weight))
        if not isinstance(component, str) and component.type == "NLLLoss":
            # It takes the logarithms of probabilities; the outputs are logits like everywhere else.
            return lambda outputs, targets, *weights: loss(outputs.log_softmax(dim=1), _codes_of(targets), *weights)
        if self.one_hot and not is_own(component):
            # For rows of probabilities torch divides by the rows and not by their weights.
            return lambda outputs, targets, *weights: loss(outputs, _codes_of(targets), *weights)
        return loss

    def _weighted_loss(
        self, component: Component | str, class_weight: Array | None, device: torch.device | str
    ) -> Loss:
        """Return a loss of torch that weighs rows, and classes if asked for."""
        import torch

        # Torch itself weighs the loss of a row by its class and, where labels are smoothed, by all classes.
        by_class = {} if class_weight is None else {"weight": torch.from_numpy(class_weight)}
        each = self._build_loss(component, device, **by_class, reduction="none")
        counts = torch.ones(self.output_size) if class_weight is None else torch.tensor(class_weight)
        if 0 <= each.ignore_index < self.output_size:
            counts[each.ignore_index] = 0.0
        counts = counts.to(device)
        return lambda outputs, codes, weights: weighted_mean(each(outputs, codes), weights, counts[codes] * weights)

    def _loss_of_shares(
        self, component: Component | str, class_weight: Array | None, device: torch.device | str
    ) -> Loss:
        """Return a loss of torch on rows of shares, (rows, classes), with weights of rows or without."""
        import torch

        if is_own(component):
            raise misfit(
                "loss",
                f"the loss {component.type} is yours, and takes classes; data_augmentors that mix samples make rows of "
                f"shares of them, (rows, {self.output_size}): set dataset.one_hot: true if it takes these",
            )
        by_class = {} if class_weight is None else {"weight": torch.from_numpy(class_weight)}
        each = self._build_loss(component, device, **by_class, reduction="none")
        if isinstance(each, torch.nn.NLLLoss) or each.ignore_index >= 0:
            raise misfit(
                "loss",
                f"{'NLLLoss' if isinstance(each, torch.nn.NLLLoss) else 'ignore_index'} needs one class for each row; "
                "data_augmentors that mix samples make shares of classes: leave them out, or use CrossEntropyLoss "
                "without ignore_index",
            )
        counts = torch.ones(self.output_size) if class_weight is None else torch.tensor(class_weight)
        counts = counts.to(device)

        def of_shares(outputs: torch.Tensor, shares: torch.Tensor, weights: torch.Tensor | float = 1.0) -> torch.Tensor:
            weights = torch.ones_like(shares[:, 0]) * weights
            return weighted_mean(each(outputs, shares), weights, (shares * counts).sum(dim=1) * weights)

        return of_shares

    def shares(self, targets: Array) -> Array:
        """Return float32 of shape (rows, classes)."""
        return targets if self.one_hot else np.eye(self.output_size, dtype=np.float32)[targets]

    def activate(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return probabilities (rows, classes)."""
        return outputs.softmax(dim=1)

    def metric_arguments(self) -> dict[str, Any]:
        """Return the number of classes too."""
        return {"task": self.name, "num_classes": len(self._classes)}

    def metric_inputs(self, scores: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return probabilities and codes."""
        return scores, _codes_of(targets)


def _codes_of(targets: torch.Tensor) -> torch.Tensor:
    return targets.argmax(dim=1) if targets.ndim == 2 else targets


class Multilabel(Task):
    """Several labels, each of which may be right: a logit for each."""

    name = "multilabel"
    losses = ("BCEWithLogitsLoss", "MultiLabelSoftMarginLoss")
    metrics = ("accuracy",)

    def __init__(self, labels: Sequence[Any] | Array) -> None:
        self._labels = as_labels(labels)
        self.output_size = len(self._labels)

    @property
    def classes(self) -> Array:
        """The names of the labels, in the order of the columns of y."""
        return self._labels

    def encode(self, y: Array) -> Array:
        """Return float32 of shape (rows, labels), zeros and ones.

        Raises:
            DataError: The shape differs, or there is another value.
        """
        if y.ndim != 2 or y.shape[1] != self.output_size:
            raise DataError(f"y has the shape {y.shape}; expected (rows, {self.output_size}), a column for each label")
        targets = np.asarray(y, dtype=np.float32)
        if not np.isin(targets, (0.0, 1.0)).all():
            raise DataError("y of a multilabel task has values other than 0 and 1")
        return targets

    def activate(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return a probability for each label, (rows, labels)."""
        return outputs.sigmoid()

    def decode(self, scores: Array) -> Array:
        """Return int64 zeros and ones, (rows, labels): ones from a probability of a half."""
        return (scores >= 0.5).astype(np.int64)

    def metric_arguments(self) -> dict[str, Any]:
        """Return the number of labels too."""
        return {"task": self.name, "num_labels": self.output_size}

    def metric_inputs(self, scores: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return probabilities and codes."""
        return scores, targets.long()

    def to_dict(self) -> dict[str, Any]:
        """Return the task and its labels."""
        return {"task": self.name, **_written(self._labels)}


class Regression(Task):
    """One number for each row, or several."""

    name = "regression"
    losses = ("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss", "PoissonNLLLoss")
    metrics = ("mae", "r2")

    def __init__(
        self, outputs: int | None = None, names: Sequence[str] | None = None, *, log_link: bool = False
    ) -> None:
        # None: y has one dimension, and so have predictions.
        self.outputs = outputs
        self.names = None if names is None else list(names)
        self.output_size = 1 if outputs is None else outputs
        # Whether the model gives logarithms, which is what PoissonNLLLoss compares by default.
        self.log_link = log_link

    @property
    def has_probabilities(self) -> bool:
        """A regression has none."""
        return False

    @property
    def classes(self) -> Array:
        """Refuse.

        Raises:
            TaskError: Always: a regression has no classes.
        """
        raise TaskError("a regression has no classes and no probabilities; use predict()")

    def encode(self, y: Array) -> Array:
        """Return float32 of shape (rows, outputs).

        Raises:
            DataError: The shape differs, y holds text, or a number is too large for a float32.
        """
        expected = "(rows,)" if self.outputs is None else f"(rows, {self.outputs})"
        if y.shape[1:] != (() if self.outputs is None else (self.outputs,)):
            raise DataError(f"y has the shape {y.shape}; expected {expected}")
        if y.dtype.kind not in "biuf":
            raise DataError(f"y holds text such as {str(y.flat[0])!r}; a regression needs numbers")
        with np.errstate(over="ignore"):
            targets = np.asarray(y, dtype=np.float32).reshape(len(y), self.output_size)
        if not np.isfinite(targets).all():
            raise DataError("y holds numbers above 3.4e38 in size, more than a float32 holds; scale them down")
        return targets

    def activate(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the numbers, (rows, outputs)."""
        return outputs.exp() if self.log_link else outputs

    def decode(self, scores: Array) -> Array:
        """Return the numbers in the shape of y."""
        return scores.reshape(len(scores)) if self.outputs is None else scores

    def metric_arguments(self) -> dict[str, Any]:
        """Nothing: the metrics of regression look at the shape."""
        return {}

    def metric_inputs(self, scores: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return numbers: (rows,) for one output, which is what every metric takes."""
        return (scores.squeeze(1), targets.squeeze(1)) if self.output_size == 1 else (scores, targets)

    def to_dict(self) -> dict[str, Any]:
        """Return the task and its outputs."""
        return {"task": self.name, "outputs": self.outputs, "names": self.names, "log_link": self.log_link}


TASKS: tuple[str, ...] = ("binary", "multiclass", "multilabel", "regression")


def task_from_dict(content: Mapping[str, Any]) -> Task:
    """Read what `to_dict` returned."""
    name = content["task"]
    if name == "regression":
        return Regression(content["outputs"], content["names"], log_link=content["log_link"])
    labels = content["classes"] if content["dtype"] == "text" else np.array(content["classes"], dtype=content["dtype"])
    if name == "multilabel":
        return Multilabel(labels)
    return (Binary if name == "binary" else Multiclass)(labels, one_hot=content["one_hot"])


def _written(labels: Array) -> dict[str, Any]:
    return {"classes": labels.tolist(), "dtype": "text" if labels.dtype.kind in "UO" else str(labels.dtype)}


def as_labels(classes: Any) -> Array:
    """Labels as an array in which text stays text of any length."""
    array = np.asarray(list(classes) if not isinstance(classes, np.ndarray) else classes)
    return array.astype(object) if array.dtype.kind in "UO" else array
