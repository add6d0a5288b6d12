from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import user_code
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gymtrain import SpecError
from gymtrain.models.tasks import Binary, Multiclass, Multilabel, Regression, Task
from gymtrain.specs import Model
from gymtrain.specs.components import Component

BINARY, MULTICLASS = Binary(["no", "yes"]), Multiclass(["a", "b", "c"])
LOSSES: list[tuple[Task, str, dict[str, Any]]] = [
    (BINARY, "BCEWithLogitsLoss", {}),
    (Binary(["no", "yes"], one_hot=True), "BCEWithLogitsLoss", {}),
    (MULTICLASS, "CrossEntropyLoss", {}),
    (MULTICLASS, "CrossEntropyLoss", {"label_smoothing": 0.1}),
    (MULTICLASS, "CrossEntropyLoss", {"ignore_index": 1}),
    (MULTICLASS, "NLLLoss", {}),
    (Multiclass(["a", "b", "c"], one_hot=True), "CrossEntropyLoss", {"label_smoothing": 0.1}),
    (Multiclass(["a", "b", "c"], one_hot=True), "NLLLoss", {"ignore_index": 2}),
    (Multilabel(["a", "b", "c"]), "BCEWithLogitsLoss", {}),
    (Multilabel(["a", "b", "c"]), "MultiLabelSoftMarginLoss", {}),
    (Regression(), "MSELoss", {}),
    (Regression(2), "MSELoss", {}),
    (Regression(2), "L1Loss", {}),
    (Regression(), "SmoothL1Loss", {"beta": 0.5}),
    (Regression(2), "HuberLoss", {"delta": 0.5}),
    (Regression(), "PoissonNLLLoss", {}),
    (Regression(2), "PoissonNLLLoss", {"full": True}),
]
CLASS_LOSSES = [each for each in LOSSES if isinstance(each[0], Binary | Multiclass)]


def loss_named(name: Any, **arguments: Any) -> Component:
    component: Component = Model(model="linear", training={"loss": {"type": name, **arguments}}).training.loss
    return component


def rows_of(task: Task, rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return outputs of a model, and targets that every loss of the task takes."""
    generator = np.random.default_rng(seed)
    if isinstance(task, Binary | Multiclass):
        y = task.classes[np.r_[0, generator.integers(len(task.classes), size=rows - 1)]]
    elif isinstance(task, Multilabel):
        y = generator.integers(2, size=(rows, task.output_size))
    else:
        y = generator.poisson(3.0, size=(rows, 2) if task.output_size == 2 else rows)
    outputs = generator.normal(size=(rows, task.output_size)).astype(np.float32)
    return torch.from_numpy(outputs).requires_grad_(), torch.from_numpy(task.encode(y))


# The first row always counts, and has a class that no loss above ignores.
times_of_rows = st.lists(st.integers(0, 4), max_size=12).map(lambda times: [1, *times])


@pytest.mark.parametrize(("task", "name", "arguments"), LOSSES)
@settings(max_examples=20)
@given(times=times_of_rows, seed=st.integers(0, 2**32), scale=st.sampled_from([0.125, 1.0, 40.0]))
def test_a_weight_counts_like_the_row_repeated(
    task: Task, name: str, arguments: dict[str, Any], times: list[int], seed: int, scale: float
) -> None:
    component, repeats = loss_named(name, **arguments), torch.tensor(times)
    outputs, targets = rows_of(task, len(times), seed)

    weighted = task.loss(component, weighted=True)(outputs, targets, repeats.float() * scale)
    repeated = task.loss(component)(outputs.repeat_interleave(repeats, 0), targets.repeat_interleave(repeats, 0))

    torch.testing.assert_close(weighted, repeated)
    torch.testing.assert_close(*(torch.autograd.grad(each, outputs)[0] for each in (weighted, repeated)))


@pytest.mark.parametrize(("task", "name", "arguments"), CLASS_LOSSES)
@settings(max_examples=20)
@given(times=times_of_rows, seed=st.integers(0, 2**32))
def test_a_weight_counts_like_the_row_repeated_where_classes_are_weighed_too(
    task: Binary | Multiclass, name: str, arguments: dict[str, Any], times: list[int], seed: int
) -> None:
    component, repeats = loss_named(name, **arguments), torch.tensor(times)
    classes = task.weights(dict(zip(task.classes, (0.5, 3.0, 2.0), strict=False)))
    outputs, targets = rows_of(task, len(times), seed)

    weighted = task.loss(component, classes, weighted=True)(outputs, targets, repeats.float())
    repeated = task.loss(component, classes)(
        outputs.repeat_interleave(repeats, 0), targets.repeat_interleave(repeats, 0)
    )

    torch.testing.assert_close(weighted, repeated)


@pytest.mark.parametrize(("task", "name", "arguments"), LOSSES)
@pytest.mark.parametrize("weight", [1.0, 1e-30, 7.5])
def test_equal_weights_give_the_loss_without_weights(
    task: Task, name: str, arguments: dict[str, Any], weight: float
) -> None:
    component = loss_named(name, **arguments)
    outputs, targets = rows_of(task, 9, seed=0)

    weighted = task.loss(component, weighted=True)(outputs, targets, torch.full((9,), weight))

    torch.testing.assert_close(weighted, task.loss(component)(outputs, targets))


@pytest.mark.parametrize("task", [BINARY, MULTICLASS, Multilabel(range(2)), Regression()])
def test_the_usual_loss_is_weighed_too(task: Task) -> None:
    outputs, targets = rows_of(task, 9, seed=0)

    weighted = task.loss("auto", weighted=True)(outputs, targets, torch.ones(9))

    torch.testing.assert_close(weighted, task.loss("auto")(outputs, targets))


@pytest.mark.parametrize(("task", "name", "arguments"), LOSSES)
def test_a_batch_of_which_no_row_counts_changes_nothing(task: Task, name: str, arguments: dict[str, Any]) -> None:
    outputs, targets = rows_of(task, 4, seed=0)

    loss = task.loss(loss_named(name, **arguments), weighted=True)(outputs, targets, torch.zeros(4))
    loss.backward()

    assert loss.item() == 0.0
    assert torch.equal(outputs.grad, torch.zeros_like(outputs))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("task", [BINARY, MULTICLASS, Multilabel(range(2))])
def test_outputs_of_less_precision_are_weighed_in_float32(task: Task, dtype: torch.dtype) -> None:
    outputs, targets = rows_of(task, 9, seed=0)
    weights = torch.full((9,), 1e5)

    loss = task.loss("auto", weighted=True)(
        outputs.to(dtype), targets.to(dtype) if task.name == "multilabel" else targets, weights
    )

    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, task.loss("auto")(outputs, targets), rtol=2e-2, atol=2e-2)


class Weighing:
    """A loss of one's own that has to be given weights."""

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        each = (outputs.flatten() - targets.flatten()).abs()
        return (each * weights).sum() / weights.sum()


class WeighingModule(nn.Module):
    """The same as a module, for which weights are a choice."""

    def forward(
        self, outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        return Weighing()(outputs, targets, torch.ones(len(outputs)) if weights is None else weights)


@pytest.mark.parametrize("kind", [Weighing, WeighingModule])
@pytest.mark.parametrize("task", [BINARY, Regression()])
def test_a_loss_of_ones_own_is_given_the_weights(task: Task, kind: type) -> None:
    component = Component(f"user:{kind.__name__}", kind, {})
    outputs, targets = rows_of(task, 5, seed=0)
    weights = torch.arange(5.0)

    weighted = task.loss(component, weighted=True)(outputs, targets, weights)

    torch.testing.assert_close(weighted, Weighing()(outputs, targets, weights))


@pytest.mark.parametrize("kind", [Weighing, WeighingModule])
def test_a_loss_of_ones_own_that_takes_weights_does_without_them(kind: type) -> None:
    outputs, targets = rows_of(Regression(), 5, seed=0)

    loss = Regression().loss(Component(f"user:{kind.__name__}", kind, {}))(outputs, targets)

    torch.testing.assert_close(loss, nn.functional.l1_loss(outputs, targets))


@pytest.mark.parametrize("loss", [user_code.FocalLoss, "user_loss", {"type": "user_loss", "scale": 2.0}])
def test_a_loss_of_ones_own_without_weights_is_refused_where_rows_are_weighed(loss: Any) -> None:
    component = Model(model="linear", training={"loss": loss}).training.loss

    for task in (BINARY, MULTICLASS, Regression()):
        with pytest.raises(
            SpecError,
            match=r"dataset\.dataset\.sample_weight: the loss (user_code:FocalLoss|user_loss) is yours, and has to "
            r"take \(outputs, targets, weights\) to weigh rows$",
        ):
            task.loss(component, weighted=True)


@pytest.mark.parametrize("weighted", [False, True])
def test_class_weights_are_refused_where_a_loss_cannot_weigh_classes(weighted: bool) -> None:
    own, ones = Component("user:Weighing", Weighing, {}), np.ones(3, dtype=np.float32)

    for task in (BINARY, MULTICLASS):
        with pytest.raises(SpecError, match=r"class_weight: the loss user:Weighing is yours, and has to weigh the cla"):
            task.loss(own, ones[: len(task.classes)], weighted=weighted)
    with pytest.raises(SpecError, match=r"class_weight: a regression task has no classes to weigh; leave it out"):
        Regression().loss("auto", ones, weighted=weighted)


def test_a_loss_that_does_not_fit_the_task_is_refused_where_rows_are_weighed() -> None:
    with pytest.raises(SpecError, match=r"training\.loss: MSELoss does not fit a binary task; use BCEWithLogitsLoss"):
        BINARY.loss(loss_named("MSELoss"), weighted=True)


SHARED_LOSSES = [
    each for each in LOSSES if each[1] != "NLLLoss" and "ignore_index" not in each[2] and each[1] != "PoissonNLLLoss"
]


@pytest.mark.parametrize(("task", "name", "arguments"), SHARED_LOSSES)
@pytest.mark.parametrize("weighs_classes", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_of_shares_is_the_one_of_the_classes_where_nothing_is_mixed(
    task: Task, name: str, arguments: dict[str, Any], weighs_classes: bool, weighted: bool
) -> None:
    classes = None
    if weighs_classes:
        if not isinstance(task, Binary | Multiclass) or task.one_hot:
            return
        classes = task.weights(dict(zip(task.classes, (0.5, 3.0, 2.0), strict=False)))
    outputs, targets = rows_of(task, 9, seed=0)
    shares = torch.from_numpy(task.shares(targets.numpy()))
    weights = [torch.arange(9.0)] if weighted else []

    expected = task.loss(loss_named(name, **arguments), classes, weighted=weighted)(outputs, targets, *weights)
    found = task.loss(loss_named(name, **arguments), classes, weighted=weighted, mixed=True)(outputs, shares, *weights)

    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("task", [BINARY, MULTICLASS])
@pytest.mark.parametrize("label_smoothing", [None, 0.1])
def test_a_mixture_costs_what_its_parts_cost(task: Binary | Multiclass, label_smoothing: float | None) -> None:
    name, arguments = "BCEWithLogitsLoss", {}
    if isinstance(task, Multiclass):
        name, arguments = "CrossEntropyLoss", {} if label_smoothing is None else {"label_smoothing": label_smoothing}
    classes = task.weights(dict(zip(task.classes, (0.5, 3.0, 2.0), strict=False)))
    outputs, targets = rows_of(task, 9, seed=0)
    other = targets.roll(1)
    kept = torch.linspace(0, 1, 9)
    one, two = (torch.from_numpy(task.shares(each.numpy())) for each in (targets, other))
    share = kept.view(-1, *[1] * (one.ndim - 1))

    mixed = task.loss(loss_named(name, **arguments), classes, mixed=True)(outputs, one * share + two * (1 - share))
    both = task.loss(loss_named(name, **arguments), classes, weighted=True)(
        torch.cat([outputs, outputs]), torch.cat([targets, other]), torch.cat([kept, 1 - kept])
    )

    torch.testing.assert_close(mixed, both)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (loss_named("NLLLoss"), "NLLLoss needs one class for each row; data_augmentors that mix samples make shares"),
        (loss_named("CrossEntropyLoss", ignore_index=1), "ignore_index needs one class for each row"),
        (loss_named(user_code.user_loss), r"is yours, and takes classes; .*, \(rows, 3\): set dataset.one_hot: true"),
    ],
)
def test_a_loss_that_needs_classes_takes_no_mixtures(loss: Component, message: str) -> None:
    with pytest.raises(SpecError, match=rf"model\.training\.loss: .*{message}"):
        MULTICLASS.loss(loss, mixed=True)
