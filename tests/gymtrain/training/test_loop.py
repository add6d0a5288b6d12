from __future__ import annotations

import contextlib
import json
import math
import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import user_code
from torch import nn

from gymtrain import (
    Callback,
    CallbackError,
    DataError,
    NonFiniteLossError,
    SpecError,
    TaskError,
    Trainer,
    TrainingError,
)
from gymtrain.data.augmentors import Augmentation, Flip
from gymtrain.data.randomness import mix, order
from gymtrain.models.contract import LibraryLearner
from gymtrain.models.metrics import Metrics
from gymtrain.models.tasks import Binary, Multiclass, Multilabel, Regression
from gymtrain.models.torch_learner import build_learner
from gymtrain.registry import foreign_names
from gymtrain.specs import Model
from gymtrain.training.batches import Batches
from gymtrain.training.best import BestWeights
from gymtrain.training.callbacks import HOOKS, STAGES, Callbacks, TrainingState
from gymtrain.training.loop import EpochEnd, Plan, StepEnd, fit
from gymtrain.training.optimizers import build_optimizers
from gymtrain.training.position import Losses
from gymtrain.training.update import Update

GOLDEN = Path(__file__).parents[2] / "data" / "golden"
CPU = torch.device("cpu")
TASKS = {
    "binary": Binary(["no", "yes"]),
    "multiclass": Multiclass([0, 10, 20]),
    "multilabel": Multilabel(range(3)),
    "regression": Regression(),
    "regressions": Regression(2),
}


def steps_of(task, model, shape=(6,), *, batches=None, seed=0, training=None, **limits):
    """Train on `rows_of` with the rooms themselves, and return the module and what the loop yielded."""
    spec = Model(model=model, training={"optimizer": {"type": "Adam", "lr": 0.01}, **(training or {})})
    X, y = user_code.rows_of(task)
    inputs = torch.from_numpy(X.astype(np.float32)).repeat(1, 11)[:, : math.prod(shape)].reshape(-1, *shape)
    learner = build_learner(spec.model, TASKS[task], shape, seed=seed, device="cpu")
    options = {"batch_size": 7, "shuffle": True, **(batches or {})}
    in_order = partial(order, seed, size=len(inputs), shuffle=options.pop("shuffle"))
    targets = torch.from_numpy(TASKS[task].encode(y))
    gathered = Batches(inputs, targets, in_order, device=CPU, **options)
    update = Update(build_optimizers(spec.training.optimizer, learner.module, CPU))
    step = learner.make_step(TASKS[task].loss(spec.training.loss), {})
    plan = Plan(**{"epochs": None, "max_steps": 20, **limits})
    events = list(fit(learner.module, step, gathered, update, dict, plan, seed=seed))
    return learner.module, events


def losses_of(*args, **kwargs):
    return [event.loss.item() for event in steps_of(*args, **kwargs)[1] if isinstance(event, StepEnd)]


@pytest.mark.parametrize(
    ("name", "task", "model", "shape", "batches"),
    [
        ("mlp-multiclass", "multiclass", {"type": "mlp", "hidden": [8], "dropout": 0.2}, (6,), {}),
        ("linear-binary", "binary", {"type": "linear"}, (6,), {"shuffle": False}),
        ("mlp-regression", "regression", {"type": "mlp", "hidden": [8]}, (6,), {}),
        (
            "cnn-multilabel",
            "multilabel",
            {"type": "cnn", "channels": [2], "hidden": [4]},
            (8, 8),
            {"augmentation": Augmentation([Flip()], seed=0)},
        ),
    ],
)
def test_losses_are_those_of_the_day_they_were_written_down(name, task, model, shape, batches):
    losses = losses_of(task, model, shape, batches=batches)

    # Compared loosely enough for another processor; a change of the order, the weights or the maths moves them more.
    assert losses == pytest.approx(json.loads((GOLDEN / f"{name}.json").read_text()), rel=1e-5)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    model = {"type": "mlp", "hidden": [8], "dropout": 0.5}

    first, again, other = (losses_of("multiclass", model, seed=seed) for seed in (3, 3, 4))

    assert first == again
    assert first != other


def test_the_loop_is_the_one_that_everybody_writes_by_hand():
    X, y = user_code.rows_of("multiclass")
    inputs, targets = torch.from_numpy(X.astype(np.float32)), torch.from_numpy(TASKS["multiclass"].encode(y))
    torch.manual_seed(5)
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01, fused=True)
    by_hand = []
    for epoch in (1, 2, 3):
        torch.manual_seed(mix(5, epoch))
        for rows in order(5, epoch, 40, shuffle=True).split(8):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(module(inputs[rows]), targets[rows])
            loss.backward()
            optimizer.step()
            by_hand.append(loss.item())

    model = {"type": "mlp", "hidden": [8], "dropout": 0.3}
    trained, events = steps_of("multiclass", model, seed=5, epochs=3, max_steps=None, batches={"batch_size": 8})

    assert [event.loss.item() for event in events if isinstance(event, StepEnd)] == by_hand
    for own, ours in zip(module.state_dict().values(), trained.state_dict().values(), strict=True):
        assert torch.equal(own, ours)


@pytest.mark.parametrize(
    ("limits", "steps", "epochs"),
    [
        ({"epochs": 2, "max_steps": None}, 12, 2),
        ({"epochs": None, "max_steps": 4}, 4, 1),  # less than an epoch, which has 6 steps
        ({"epochs": None, "max_steps": 6}, 6, 1),
        ({"epochs": None, "max_steps": 8}, 8, 2),
        ({"epochs": 1, "max_steps": 8}, 6, 1),
        ({"epochs": 3, "max_steps": 8}, 8, 2),
    ],
)
def test_training_ends_after_the_epochs_or_the_steps_whichever_come_first(limits, steps, epochs):
    _, events = steps_of("binary", {"type": "linear"}, **limits)

    assert [event.step for event in events if isinstance(event, StepEnd)] == list(range(1, steps + 1))
    ends = [event for event in events if isinstance(event, EpochEnd)]
    assert [end.epoch for end in ends] == list(range(1, epochs + 1))
    assert ends[-1].step == steps


def test_the_loss_of_an_epoch_is_the_mean_over_its_rows_across_blocks(monkeypatch):
    monkeypatch.setattr(Losses, "BLOCK", 3)
    losses = Losses()

    for step in range(1, 8):
        losses.add(torch.tensor(float(step)), step, step)

    assert losses.means()["loss"] == pytest.approx(sum(step * step for step in range(1, 8)) / sum(range(1, 8)))


def test_a_loss_that_is_no_number_is_named_with_its_step():
    losses = Losses()
    for step, value in enumerate([1.0, 2.0, math.inf, math.nan], start=1):
        losses.add(torch.tensor(value), 1, step)

    with pytest.raises(NonFiniteLossError, match=r"the loss became inf at step 3; try a smaller learning rate"):
        losses.means()


def test_a_batch_size_above_the_number_of_rows_makes_one_batch(tiny):
    result = tiny(training={"epochs": 2, "batch_size": 10_000}).train()

    assert result["status"] == "FINISHED"


@pytest.mark.parametrize("training", [{"max_steps": 3}, {"max_steps": 3, "epochs": 5}, {"epochs": 2}])
def test_the_reason_of_the_end_is_told(tiny, training):
    trainer = tiny(training=training)

    result = trainer.train()

    assert result["stop_reason"] == ("max_steps" if "max_steps" in training else "epochs")
    assert len(result["metrics"]["train/loss"]) == (1 if "max_steps" in training else 2)


# The best weights.


@pytest.mark.parametrize(("monitor", "pick"), [("val/loss", min), ("val/accuracy", max), ("train/loss", min)])
def test_the_weights_that_are_kept_are_those_of_the_best_epoch(tiny, monitor, pick):
    training = {"epochs": 6, "optimizer": {"type": "SGD", "lr": 0.5}, "validation_split": 0.3, "monitor": monitor}
    trainer = tiny(training=training)
    result = trainer.train()
    values = result["metrics"][monitor]
    best = values.index(pick(values)) + 1

    shorter = tiny(training={**training, "epochs": best, "monitor": None})
    shorter.train()

    assert result["best"] == {
        "epoch": best,
        "metric": monitor,
        "value": pick(values),
        "mode": "max" if pick is max else "min",
    }
    X = np.random.default_rng(0).random((5, 4)) * 5
    assert trainer.predict_proba(X).tobytes() == shorter.predict_proba(X).tobytes()


def test_without_a_monitor_the_last_weights_stay(tiny):
    result = tiny(training={"epochs": 2, "validation_split": 0.3, "monitor": None}).train()

    assert result["best"] is None


def test_without_validation_rows_nothing_is_monitored(tiny):
    assert tiny().train()["best"] is None


def test_an_epoch_whose_metric_is_no_number_is_never_the_best():
    module = nn.Linear(1, 1)
    best = BestWeights("val/loss", ["val/loss"], lambda name: False)

    for epoch, value in enumerate([math.nan, 3.0, 2.0, math.nan, 2.5, -math.inf], start=1):
        nn.init.constant_(module.weight, epoch)
        best.update(epoch, {"val/loss": value}, module)
    best.restore(module)

    assert best.to_dict() == {"epoch": 3, "metric": "val/loss", "value": 2.0, "mode": "min"}
    assert module.weight.item() == 3.0


def test_a_metric_that_was_never_a_number_leaves_the_last_weights():
    module = nn.Linear(1, 1)
    best = BestWeights("val/r2", ["val/r2"], lambda name: True)
    best.update(1, {"val/r2": math.nan}, module)
    best.restore(module)

    assert best.to_dict() is None


@pytest.mark.parametrize(
    ("monitor", "hint"),
    [
        ("val/acuracy", "did you mean 'val/accuracy'"),
        ("val/f1", "there are train/loss, val/accuracy, val/loss"),
        ("train/accuracy", "did you mean"),
    ],
)
def test_an_unknown_monitor_is_refused_before_the_first_step(tiny, monitor, hint):
    trainer = tiny(training={"epochs": 1, "validation_split": 0.2, "monitor": monitor})

    with pytest.raises(SpecError, match=rf"model\.training\.monitor: there is no metric '{monitor}'.*{hint}"):
        trainer.train()
    assert trainer.result["metrics"] == {}


def test_monitoring_a_validation_metric_without_validation_rows_is_refused(tiny):
    with pytest.raises(SpecError, match=r"there is no metric 'val/loss'.*train/loss"):
        tiny(training={"epochs": 1, "monitor": "val/loss"}).train()


# Callbacks.


class Told(Callback):
    """Writes down every hook that is called, with where training stood."""

    def __init__(self, name="", log=None):
        self.name, self.log = name, [] if log is None else log


def _note(hook):
    def called(self, state):
        self.log.append((self.name + hook, state.epoch, state.step))

    return called


for _hook in HOOKS:
    setattr(Told, _hook, _note(_hook))


def test_every_hook_is_called_in_the_order_of_what_happens(tiny):
    told = Told()
    tiny(samples={"train": 60, "test": 20}, training={"epochs": 2, "batch_size": 32}).train([told])

    before = [f"on_{stage}_{when}" for stage in STAGES[:5] for when in ("begin", "end")]
    assert [name for name, _, _ in told.log] == [
        "on_train_begin",
        *before,
        "on_fit_model_begin",
        *["on_epoch_begin", "on_step_end", "on_step_end", "on_epoch_end"] * 2,
        "on_fit_model_end",
        "on_evaluate_model_begin",
        "on_evaluate_model_end",
        "on_train_end",
    ]
    where = [(epoch, step) for name, epoch, step in told.log if "epoch" in name or "step" in name]
    assert where == [(1, 0), (1, 1), (1, 2), (1, 2), (2, 2), (2, 3), (2, 4), (2, 4)]
    assert "on_exception" in HOOKS


def test_callbacks_are_called_in_the_order_given(tiny):
    log = []
    tiny().train([Told("first ", log), Told("second ", log)])

    names = [name for name, _, _ in log]
    assert names[::2] == [name.replace("second", "first") for name in names[1::2]]


def test_a_callback_sees_what_is_planned_and_the_metrics(tiny):
    class Look(Callback):
        def on_epoch_end(self, state):
            self.seen = (state.num_epochs, state.num_steps, sorted(state.metrics))

        def on_train_end(self, state):
            self.end = (sorted(state.metrics), "total" in state.elapsed)

    look = Look()
    tiny(samples={"train": 0.8, "test": 0.2}, training={"epochs": 2, "batch_size": 50, "validation_split": 0.5}).train(
        [look]
    )

    metrics = ["train/loss", "val/accuracy", "val/loss"]
    assert look.seen == (2, 4, metrics)
    assert look.end == (sorted([*metrics, "test/accuracy", "test/loss"]), True)


@pytest.mark.parametrize(
    ("hook", "epochs", "step"),
    [("on_epoch_end", 2, 8), ("on_step_end", 2, 5), ("on_epoch_begin", 1, 5)],
)
def test_a_callback_stops_training(tiny, hook, epochs, step):
    def stop(self, state):
        if state.epoch == 2:
            state.stop("enough")

    stopping = type("Stopping", (Callback,), {hook: stop})()

    result = tiny(training={"epochs": 10, "batch_size": 32}).train([stopping])

    assert result["stop_reason"] == "enough"
    assert result["status"] == "FINISHED"
    assert len(result["metrics"]["train/loss"]) == epochs


def test_a_stop_in_the_middle_of_an_epoch_ends_it_like_any_other(tiny, flowers):
    class Stop(Callback):
        def on_step_end(self, state):
            state.stop()

    trainer = tiny(training={"epochs": 10, "validation_split": 0.2})
    result = trainer.train([Stop()])

    assert result["stop_reason"] == "callback"
    assert result["best"]["epoch"] == 1
    assert [len(values) for values in result["metrics"].values() if isinstance(values, list)] == [1, 1, 1]
    assert trainer.predict(flowers[0]).shape == (150,)


def test_a_callback_that_fails_is_named_with_its_hook(tiny):
    class Bad(Callback):
        def on_epoch_end(self, state):
            raise ZeroDivisionError("by zero")

    trainer = tiny()

    with pytest.raises(CallbackError, match=r"on_epoch_end of the callback Bad failed: by zero") as caught:
        trainer.train([Bad()])
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert trainer.result["status"] == "FAILED"
    assert trainer.result["metrics"]["train/loss"]


def test_a_hook_that_is_misspelt_is_refused_where_it_is_written():
    with pytest.raises(SpecError, match=r"Late\.on_epoch_ends: there is no such hook; did you mean 'on_epoch_end'"):

        class Late(Callback):
            def on_epoch_ends(self, state):
                pass


@pytest.mark.parametrize("given", [[print], [Callback], "early"])
def test_what_is_no_list_of_callbacks_is_refused(tiny, given):
    with pytest.raises(SpecError, match=r"callbacks(\[0\])?: got .*; expected"):
        tiny().train(given)


def test_a_hook_that_nobody_overrides_has_no_entry_in_the_table():
    class OnlyEpochs(Callback):
        def on_epoch_end(self, state):
            pass

    callbacks = Callbacks([OnlyEpochs(), Callback()], TrainingState())

    assert {hook: len(listed) for hook, listed in callbacks._table.items() if listed} == {"on_epoch_end": 1}


# Class weights, one-hot targets, decoding.


def outputs_and_codes(task, rows=9):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, task.output_size, generator=generator), torch.arange(rows) % len(task.classes)


@pytest.mark.parametrize("one_hot", [False, True])
def test_weighted_losses_are_what_one_works_out_by_hand(one_hot):
    binary, multiclass = Binary(["no", "yes"], one_hot=one_hot), Multiclass(["a", "b", "c"], one_hot=one_hot)
    for task, weights in ((binary, {"no": 1.0, "yes": 3.0}), (multiclass, {"a": 2.0, "c": 0.5})):
        outputs, codes = outputs_and_codes(task)
        probabilities = task.activate(outputs)
        each = -probabilities[torch.arange(9), codes].log()
        by_code = torch.tensor([weights.get(label, 1.0) for label in task.classes])[codes]
        targets = torch.eye(len(task.classes))[codes] if one_hot else codes

        loss = task.loss("auto", task.weights(weights))(outputs, targets)

        assert loss.item() == pytest.approx(((each * by_code).sum() / by_code.sum()).item(), rel=1e-5)


def test_balanced_weights_make_all_classes_count_the_same(tiny):
    X, _ = user_code.rows_of("binary")
    y = np.array(["many"] * 30 + ["few"] * 10)
    data = {"type": "arrays", "X": X, "y": y}
    common = {"epochs": 2, "optimizer": {"type": "SGD", "lr": 0.1}}
    by_hand = {"many": 40 / (2 * 30), "few": 40 / (2 * 10)}

    losses = [
        tiny(data, training={**common, "class_weight": weight}, samples={"train": 1.0}).train()["metrics"]["train/loss"]
        for weight in ("balanced", by_hand, None)
    ]

    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[0] != pytest.approx(losses[2], rel=1e-3)


def test_class_weights_reach_estimators_as_weights_of_rows(tiny):
    X, y = user_code.rows_of("binary")
    data = {"type": "arrays", "X": X, "y": y}
    model = {"type": "sklearn", "estimator": "LogisticRegression"}

    plain, weighted = tiny(data, model, training={}), tiny(data, model, training={"class_weight": {"yes": 50.0}})
    plain.train(), weighted.train()

    assert weighted.predict_proba(X)[:, 1].mean() > plain.predict_proba(X)[:, 1].mean() + 0.1


@pytest.mark.parametrize(
    ("dataset", "model", "weight", "error", "message"),
    [
        ("iris", "linear", {"7": 1.0}, SpecError, r"class_weight: there is no class '7'.*the classes are 0, 1, 2"),
        ("diabetes", "linear", "balanced", SpecError, r"class_weight: a regression task has no classes to weigh"),
        (
            "diabetes",
            {"type": "sklearn", "estimator": "Ridge"},
            {"0": 1.0},
            SpecError,
            r"class_weight: a regression task has no classes to weigh",
        ),
        ({"type": "user_rows", "task": "multilabel"}, "linear", "balanced", SpecError, r"a multilabel task has no"),
        (
            "iris",
            {"type": "sklearn", "estimator": "KNeighborsClassifier"},
            "balanced",
            TrainingError,
            r"KNeighborsClassifier: .*sample_weight",
        ),
        ("iris", "nearest_mean", "balanced", SpecError, r"NearestMean\.fit takes no sample_weight; leave class_weight"),
    ],
)
def test_class_weights_that_cannot_be_used_are_refused(tiny, dataset, model, weight, error, message):
    training = {"class_weight": weight}

    with pytest.raises(error, match=message):
        tiny(dataset, model, training=training).train()


def test_class_weights_and_a_loss_of_ones_own_are_refused(tiny):
    training = {"epochs": 1, "class_weight": "balanced", "loss": {"type": "user_code:FocalLoss"}}

    with pytest.raises(SpecError, match=r"class_weight: the loss user_code:FocalLoss is yours"):
        tiny(training=training).train()


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("weight", [None, "balanced"])
def test_one_hot_targets_give_what_codes_give(tiny, task, weight):
    data = {"type": "user_rows", "task": task}
    training = {"epochs": 2, "class_weight": weight, "validation_split": 0.25, "metrics": ["accuracy", "f1"]}

    codes, one_hot = (tiny(data, training=training, one_hot=flag) for flag in (False, True))

    assert codes.train()["metrics"] == one_hot.train()["metrics"]
    X, y = user_code.rows_of(task)
    assert codes.predict_proba(X).tobytes() == one_hot.predict_proba(X).tobytes()
    assert codes.evaluate(X, y) == one_hot.evaluate(X, y)


def test_labels_are_decoded_from_the_largest_probability(tiny):
    X, y = user_code.rows_of("multiclass")
    trainer = tiny({"type": "arrays", "X": X, "y": y}, training={"epochs": 3})
    trainer.train()

    assert (trainer.predict(X) == trainer.classes_[trainer.predict_proba(X).argmax(axis=1)]).all()
    assert trainer.classes_.tolist() == [0, 10, 20]


def test_several_labels_are_decoded_from_a_half(tiny):
    X, y = user_code.rows_of("multilabel")
    trainer = tiny({"type": "arrays", "X": X, "y": y}, training={"epochs": 3})
    trainer.train()

    predicted = trainer.predict(X)

    assert predicted.dtype == np.int64
    assert (predicted == (trainer.predict_proba(X) >= 0.5)).all()


# Optimizers, losses, metrics.


@pytest.mark.parametrize("name", foreign_names("optimizer"))
def test_every_optimizer_steps(tiny, name):
    if name == "Muon":  # for matrices alone, which is what it says
        with pytest.raises(SpecError, match=r"model\.training\.optimizer: Muon refuses its arguments: .*2D"):
            tiny(training={"epochs": 1, "optimizer": name}).train()
        return

    result = tiny(training={"epochs": 2, "optimizer": name}).train()

    first, second = result["metrics"]["train/loss"]
    assert first != second
    assert math.isfinite(second)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ({"type": "Adam", "betas": [1.5, 0.9]}, r"Adam refuses its arguments: Invalid beta parameter at index 0: 1\.5"),
        ({"type": "SGD", "nesterov": True}, r"SGD refuses its arguments: Nesterov"),
    ],
)
def test_arguments_that_torch_refuses_are_reported_in_words_of_the_spec(tiny, optimizer, message):
    with pytest.raises(SpecError, match=message):
        tiny(training={"epochs": 1, "optimizer": optimizer}).train()


def test_a_user_may_choose_how_an_optimizer_is_computed(tiny):
    results = [
        tiny(training={"epochs": 2, "optimizer": {"type": "Adam", "foreach": foreach}}).train()
        for foreach in (None, True)
    ]

    losses = [result["metrics"]["train/loss"] for result in results]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize(
    ("task", "loss"),
    [(name, loss) for name, task in TASKS.items() for loss in task.losses],
)
def test_every_loss_of_a_task_trains(tiny, task, loss):
    data = {"type": "user_rows", "task": task}
    if loss == "PoissonNLLLoss":
        X, y = user_code.rows_of(task)
        data = {"type": "arrays", "X": X, "y": np.abs(y), "task": "regression"}

    result = tiny(data, training={"epochs": 2, "loss": loss, "validation_split": 0.2}).train()

    assert math.isfinite(result["metrics"]["val/loss"][-1])


def test_a_loss_of_another_task_is_refused_with_those_that_fit(tiny):
    message = r"model\.training\.loss: MSELoss does not fit a multiclass task; use CrossEntropyLoss or NLLLoss"
    with pytest.raises(SpecError, match=message):
        tiny(training={"epochs": 1, "loss": "mse"}).train()


def test_the_loss_of_logarithms_and_the_usual_one_are_the_same(tiny):
    usual, by_logs = (
        tiny(training={"epochs": 2, "loss": loss}).train()["metrics"]["train/loss"] for loss in ("auto", "nll")
    )

    assert usual == pytest.approx(by_logs, rel=1e-6)


def test_predictions_of_a_poisson_loss_are_counts_and_not_their_logarithms(tiny):
    generator = np.random.default_rng(0)
    X = generator.random((300, 2))
    y = generator.poisson(np.exp(1 + 2 * X[:, 0]))
    data = {"type": "arrays", "X": X, "y": y, "task": "regression"}
    training = {"epochs": 60, "optimizer": {"type": "Adam", "lr": 0.05}, "loss": "poisson_nll"}

    trainer = tiny(data, training=training)
    trainer.train()

    assert (trainer.predict(X) > 0).all()
    assert trainer.predict(X).mean() == pytest.approx(y.mean(), rel=0.1)
    assert trainer.evaluate(X, y)["r2"] > 0.3


def test_counts_below_zero_are_refused(tiny):
    data = {"type": "arrays", "X": np.eye(4), "y": np.array([1.0, -2.0, 0.0, 1.0])}

    with pytest.raises(DataError, match=r"PoissonNLLLoss is for counts; the smallest target is -2\.0"):
        tiny(data, training={"epochs": 1, "loss": "poisson_nll"}).train()


def test_a_loss_of_ones_own_is_what_is_trained_and_evaluated_with(tiny):
    losses = [
        tiny(training={"epochs": 1, "loss": loss, "validation_split": 0.2}).train()["metrics"]["val/loss"]
        for loss in ({"type": "user_code:FocalLoss", "gamma": 0.0}, {"type": "user_code:FocalLoss"}, "auto")
    ]

    assert losses[0] == pytest.approx(losses[2], rel=1e-6)
    assert losses[1] < losses[2]


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("user_code:VectorLoss", r"model\.training\.loss: it returned shape \(2,\); expected a tensor of shape \(\)"),
        ("user_code:RaisingLoss", r"model\.training\.loss: it fails on outputs .*: cannot be computed"),
    ],
)
def test_a_loss_that_fails_is_told_of_before_the_first_step(tiny, loss, message):
    component = {"type": loss} if isinstance(loss, str) else loss

    with pytest.raises((TrainingError, SpecError), match=message):
        tiny(training={"epochs": 1, "loss": component}).train()


EXTRA = {"FBetaScore": {"beta": 2.0}, "MinkowskiDistance": {"p": 2.0}, "CriticalSuccessIndex": {"threshold": 0.5}}


def metrics_for(name, task):
    given = {"type": name, **EXTRA.get(name, {})}
    return Metrics(Model(model="linear", training={"metrics": [given]}).training.metrics, task)


def rows_and_targets(task):
    generator = torch.Generator().manual_seed(1)
    scores = task.activate(torch.rand(40, task.output_size, generator=generator))
    if isinstance(task, Regression):
        return scores, torch.rand(40, task.output_size, generator=generator)
    if isinstance(task, Multilabel):
        return scores, (torch.rand(40, 3, generator=generator) > 0.5).float()
    return scores, torch.arange(40) % len(task.classes)


@pytest.mark.parametrize("name", foreign_names("metric"))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_metric_gives_a_number_for_some_task_and_is_refused_by_the_others(name):
    if name == "ContinuousRankedProbabilityScore":
        pytest.skip("it is about ensembles")
    fitting = []
    for task in TASKS.values():
        with contextlib.suppress(SpecError):
            metrics = metrics_for(name, task)
            metrics.update(*rows_and_targets(task))
            fitting.append((task.name, metrics.compute()[name]))

    assert fitting
    assert all(isinstance(value, float) for _, value in fitting)


@pytest.mark.parametrize(
    ("task", "metrics", "message"),
    [
        ("binary", ["mae"], r"'mae' is a metric of numbers, and the task is binary"),
        ("regression", ["accuracy"], r"'accuracy' is a metric of classes, and the task is regression"),
        ("regressions", ["pearson_corr_coef"], r"'pearson_corr_coef' does not give a number for a regression task"),
        ("multiclass", [{"type": "accuracy", "average": "none"}], r"'accuracy' does not give a number"),
        ("multilabel", ["cohen_kappa"], r"'cohen_kappa' does not give a number for a multilabel task"),
    ],
)
@pytest.mark.parametrize("model", ["linear", "nearest_mean"])
def test_a_metric_that_does_not_fit_is_refused_before_anything_is_fitted(tiny, task, metrics, message, model):
    if model == "nearest_mean" and task not in ("binary", "multiclass"):
        model = {"type": "sklearn", "estimator": "KNeighborsRegressor" if "reg" in task else "KNeighborsClassifier"}

    with pytest.raises(SpecError, match=message):
        tiny({"type": "user_rows", "task": task}, model, training={"metrics": metrics}).train()


def test_metrics_are_logged_under_the_names_that_they_were_given(tiny):
    metrics = ["accuracy", {"type": "f1_score", "average": "macro", "name": "macro_f1"}, "roc_auc"]

    result = tiny(samples={"train": 0.5, "val": 0.25, "test": 0.25}, training={"epochs": 1, "metrics": metrics}).train()

    names = ["accuracy", "macro_f1", "roc_auc"]
    assert set(result["metrics"]) == {
        "train/loss",
        *(f"{part}/{name}" for part in ("val", "test") for name in ["loss", *names]),
    }


def test_metrics_are_what_scikit_learn_makes_of_the_same_predictions(tiny):
    from sklearn.metrics import accuracy_score, f1_score, log_loss, roc_auc_score

    X, y = user_code.rows_of("binary", 200)
    trainer = tiny({"type": "arrays", "X": X, "y": y}, training={"epochs": 5, "metrics": ["accuracy", "f1", "auroc"]})
    trainer.train()

    values, probabilities = trainer.evaluate(X, y), trainer.predict_proba(X)[:, 1]

    assert values["accuracy"] == pytest.approx(accuracy_score(y, trainer.predict(X)))
    assert values["f1"] == pytest.approx(f1_score(y, trainer.predict(X), pos_label="yes"))
    assert values["auroc"] == pytest.approx(roc_auc_score(y == "yes", probabilities), abs=1e-6)
    assert values["loss"] == pytest.approx(log_loss(y == "yes", probabilities), rel=1e-4)


# The model and the machine around the loop.


def test_a_batch_of_one_row_is_refused_where_the_module_normalises_over_the_batch(tiny):
    X, y = user_code.rows_of("multiclass", 41)
    data = {"type": "arrays", "X": X, "y": y}

    with pytest.raises(TrainingError, match=r"batch_size: 8 leaves 41 rows with a batch of one, which Everything"):
        tiny(
            data,
            {"type": "user_code:Everything"},
            training={"epochs": 1, "batch_size": 8},
            samples={"train": 1.0},
        ).train()
    assert tiny(data, "linear", {"epochs": 1, "batch_size": 8}, samples={"train": 1.0}).train()


@pytest.mark.parametrize(
    ("dataset", "model", "error", "message"),
    [
        ("iris", {"type": "user_code:WrongShape", "outputs": 2}, TaskError, r"WrongShape returned shape \(1, 2\)"),
        ("iris", {"type": "user_code:WrongShape", "flat": True}, TaskError, r"add \.unsqueeze\(1\)"),
        (
            "breast_cancer",
            {"type": "user_code:WrongShape", "outputs": 2},
            TaskError,
            r"for two outputs, declare the dataset's task as 'multiclass'",
        ),
        ("iris", {"type": "user_code:Fails"}, TrainingError, r"model\.model \(user_code:Fails\): the constructor"),
        (
            "iris",
            {"type": "user_code:Fails", "at": "forward"},
            TrainingError,
            r"Fails fails on rows of shape \(4,\): no such layer",
        ),
        ("iris", {"type": "user_code:Rows"}, TrainingError, r"expected a torch\.nn\.Module, or an object"),
        ("iris", "cnn", DataError, r"cnn takes images of shape \(height, width\).* got rows of shape \(4,\)"),
        (
            {"type": "digits", "images": True},
            {"type": "cnn", "channels": [2, 2, 2, 2]},
            DataError,
            r"4 convolutions halve an image 4 times; got images of 8 x 8 pixels",
        ),
        ("iris", {"type": "sklearn", "estimator": "Ridge"}, TrainingError, r"Ridge is no classifier"),
        ("diabetes", {"type": "sklearn", "estimator": "LogisticRegression"}, TrainingError, r"is no regressor"),
        ("iris", {"type": "sklearn", "estimator": "KMeans"}, TrainingError, r"KMeans is no classifier"),
        ("iris", {"type": "user_code:Odd"}, TaskError, r"Odd predicted .*7.*; a multiclass task needs the codes"),
        ("iris", {"type": "user_code:Odd", "what": "shape"}, TaskError, r"shape \(\d+, 9\) for \d+ rows; .*, 3\)$"),
        (
            "iris",
            {"type": "sklearn", "estimator": "LogisticRegression", "C": -1.0},
            TrainingError,
            r"model\.model: LogisticRegression: The 'C' parameter",
        ),
    ],
)
def test_a_model_that_does_not_fit_is_refused_in_words_of_the_spec(tiny, dataset, model, error, message):
    kind = model if isinstance(model, str) else model["type"]
    training = {} if kind == "sklearn" or kind.endswith("Odd") else {"epochs": 1}

    with pytest.raises(error, match=message):
        tiny(dataset, model, training).train()


def test_training_leaves_the_random_numbers_of_the_program_as_they_were(tiny):
    for model, training in (("linear", {"epochs": 1}), ({"type": "user_code:Lazy", "outputs": 3}, {"epochs": 1})):
        trainer = tiny(model=model, training=training)
        torch.manual_seed(1), np.random.seed(1), random.seed(1)
        expected = torch.rand(1), np.random.rand(), random.random()
        torch.manual_seed(1), np.random.seed(1), random.seed(1)
        trainer.train()

        assert (torch.rand(1), np.random.rand(), random.random()) == expected


def test_lazy_layers_draw_their_weights_from_the_seed(tiny):
    results = []
    for seed in (0, 0, 1):
        torch.rand(seed + 1)
        training = {"epochs": 1, "seed": seed}
        results.append(tiny(model={"type": "user_code:Lazy", "outputs": 3}, training=training).train()["metrics"])

    assert results[0] == results[1] != results[2]


def test_a_label_that_is_the_same_in_all_training_rows_keeps_its_column(tiny):
    X, y = user_code.rows_of("multilabel")
    y[:, 1], y[:, 2] = 0, 1
    data = {"type": "arrays", "X": X, "y": y, "task": "multilabel"}
    for estimator in ("RandomForestClassifier", "KNeighborsClassifier", "ExtraTreeClassifier"):
        trainer = tiny(data, {"type": "sklearn", "estimator": estimator}, training={})
        trainer.train()

        probabilities = trainer.predict_proba(X)

        assert probabilities.shape == (40, 3)
        assert (probabilities[:, 1:] == [0.0, 1.0]).all()


def test_settings_of_the_loop_are_warned_about_where_there_is_no_loop(tiny):
    trainer = tiny(model={"type": "sklearn", "estimator": "GaussianMixture"}, training={})
    assert trainer is not None
    trainer = tiny(
        model={"type": "sklearn", "estimator": "LogisticRegression"}, training={"epochs": 3, "batch_size": 7}
    )

    with pytest.warns(UserWarning, match=r"model\.training: epochs, batch_size have no meaning for a model that fits"):
        trainer.train()


def test_augmentors_are_warned_about_where_there_are_no_batches(tiny):
    model = {"type": "sklearn", "estimator": "LogisticRegression", "max_iter": 2000}
    data = {"type": "digits", "images": True}
    trainer = tiny(data, model, {}, preprocessors=[{"type": "divide", "factor": 16.0}], data_augmentors=["flip"])

    with pytest.warns(UserWarning, match=r"dataset\.data_augmentors change batches"):
        trainer.train()


def test_library_learners_give_float32_whatever_the_library_gives():
    class Doubles:
        def predict(self, X):
            return np.arange(len(X), dtype=np.float64)

    assert LibraryLearner(Doubles(), Regression()).scores(np.zeros((3, 1))).dtype == np.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_device_that_is_not_there_is_named(tiny):
    with pytest.raises(TrainingError, match=r"model\.training\.device: 'cuda' is not there on this machine; use"):
        tiny(training={"epochs": 1, "device": "cuda"}).train()


class Raise(Callback):
    """Raises in the third epoch."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_epoch_begin(self, state):
        if state.epoch == 3:
            raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("by zero")], ids=["Ctrl-C", "callback"])
def test_what_was_learned_before_an_interruption_is_kept(tiny, flowers, tmp_path, error):
    trainer = tiny(training={"epochs": 10, "validation_split": 0.2})

    with pytest.raises((KeyboardInterrupt, CallbackError), match=r"by zero|^$"):
        trainer.train([Raise(error)])

    assert len(trainer.result["metrics"]["val/loss"]) == 2
    assert trainer.result["best"]["epoch"] == 2
    trainer.save(tmp_path / "kept.zip")
    assert Trainer.load(tmp_path / "kept.zip").predict(flowers[0]).tolist() == trainer.predict(flowers[0]).tolist()


def test_what_was_learned_survives_a_callback_that_fails_at_the_end(tiny, flowers):
    class Bad(Callback):
        def on_train_end(self, state):
            raise ZeroDivisionError("by zero")

    trainer = tiny()

    with pytest.raises(CallbackError, match="on_train_end of the callback Bad failed"):
        trainer.train([Bad()])

    assert trainer.predict(flowers[0]).shape == (150,)


def test_a_hook_that_fails_while_an_error_ends_training_is_noted_on_it(tiny):
    class Bad(Callback):
        def on_epoch_end(self, state):
            raise KeyboardInterrupt

        def on_exception(self, state):
            raise ZeroDivisionError("by zero")

    trainer = tiny()

    with pytest.raises(KeyboardInterrupt) as caught:
        trainer.train([Bad()])

    assert caught.value.__notes__ == ["on_exception of the callback Bad failed: by zero"]
    assert trainer.result["status"] == "KILLED"


def test_models_of_other_libraries_have_one_epoch(tiny):
    seen = []

    class See(Callback):
        def on_epoch_begin(self, state):
            seen.append(("begin", state.epoch))

        def on_epoch_end(self, state):
            seen.append(("end", state.epoch, sorted(state.metrics)))

    tiny(model={"type": "sklearn", "estimator": "GaussianNB"}, training={}).train([See()])

    assert seen == [("begin", 1), ("end", 1, ["train/accuracy"])]


def weights_of(trainer: Trainer) -> list[torch.Tensor]:
    return [tensor.detach() for tensor in trainer._predictor.learner.module.parameters()]


@pytest.mark.parametrize("rows", [64, 75])  # the last window is whole; it is shorter, and so is its last batch
@pytest.mark.parametrize("model", ["linear", {"type": "mlp", "hidden": [8]}])
def test_accumulated_batches_are_one_large_one(tiny, rows, model):
    training = {"epochs": 3, "optimizer": {"type": "SGD", "lr": 0.1}}
    dataset = {"type": "user_rows", "task": "multiclass", "rows": rows}
    small = tiny(dataset, model, {**training, "batch_size": 8, "accumulate": 4}, samples={"train": 1.0})
    large = tiny(dataset, model, {**training, "batch_size": 32}, samples={"train": 1.0})

    by_small, by_large = small.train(), large.train()

    for one, other in zip(weights_of(small), weights_of(large), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert by_small["metrics"]["train/loss"] == pytest.approx(by_large["metrics"]["train/loss"], rel=1e-5)


def test_a_step_is_a_window_of_batches(tiny):
    steps = []

    class See(Callback):
        def on_step_end(self, state):
            steps.append((state.epoch, state.step, state.num_steps))

    training = {"epochs": 2, "batch_size": 8, "accumulate": 3}
    tiny({"type": "user_rows", "rows": 40}, training=training, samples={"train": 1.0}).train([See()])

    assert steps == [(1, 1, 4), (1, 2, 4), (2, 3, 4), (2, 4, 4)]


def test_accumulation_with_batch_norm_is_warned_of(tiny):
    training = {"epochs": 1, "batch_size": 16, "accumulate": 2}

    with pytest.warns(UserWarning, match=r"accumulate: .* has batch norm, which sees batches of 16 rows and not of 32"):
        tiny(model={"type": "user_code:Normed"}, training=training).train()
