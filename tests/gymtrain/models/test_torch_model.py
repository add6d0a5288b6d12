from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import user_torch_models
from torch import nn
from user_code import Interrupt

from gymtrain import Callback, SaveError, SpecError, Trainer, TrainingError, register
from gymtrain.bundle import open_bundle
from gymtrain.data.batch import Batch
from gymtrain.models.tasks import Multiclass
from gymtrain.models.torch_learner import TorchLearner
from gymtrain.models.torch_model import TorchModel
from gymtrain.specs import Model
from gymtrain.training.optimizers import build_optimizers
from gymtrain.training.update import Update

PARTS = {"train": 90, "val": 30, "test": 30}


def own(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": f"user_torch_models:{name}", **arguments}


def module_of(trainer: Trainer) -> Any:
    return trainer._predictor.learner.module


def state_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: each.clone() for name, each in module_of(trainer).state_dict().items()}


def same_bits(one: Trainer, other: Trainer) -> bool:
    first, second = state_of(one), state_of(other)
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


def whole_and_resumed(tiny, model, training, step, **fields):
    """Return a trainer that trained in one go, and one that was interrupted after a step and resumed."""
    whole = tiny(model=model, training=training, **fields)
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        tiny(model=model, training={**training, "checkpoint": {}}, **fields).train([Interrupt(step)])
    resumed = tiny(model=model, training={**training, "checkpoint": {}}, **fields)
    assert resumed.train(resume="auto")["resumed_from"] is not None
    return whole, resumed


# The defaults.


@pytest.mark.parametrize("training", [{}, {"class_weight": "balanced", "clip_grad_norm": 0.5, "ema": {}}])
def test_a_model_that_overrides_nothing_learns_the_same_bits_as_an_ordinary_module(tiny, training):
    training = {"epochs": 3, **training}
    ordinary, default = (tiny(model=own(name), training=training, samples=PARTS) for name in ("Ordinary", "Default"))

    assert ordinary.train()["metrics"] == default.train()["metrics"]
    assert same_bits(ordinary, default)


def test_rows_that_are_weighed_are_so_by_the_default_step_too(tiny, flowers):
    X, y = flowers
    data = {"type": "arrays", "X": X, "y": y, "sample_weight": np.linspace(0, 1, len(y))}
    ordinary, default = (tiny(data, own(name), {"epochs": 2}) for name in ("Ordinary", "Default"))

    assert ordinary.train()["metrics"] == default.train()["metrics"]
    assert same_bits(ordinary, default)


def test_setup_is_called_once_in_training_and_once_in_loading_before_weights_are_there(tiny, tmp_path, flowers):
    user_torch_models.Told.seen.clear()
    trainer = tiny(model=own("Told"))

    trainer.train()
    assert user_torch_models.Told.seen == [("multiclass", 3, 6)]

    trainer.save(tmp_path / "model.zip")
    loaded = Trainer.load(tmp_path / "model.zip", trust=["user_torch_models:Told"])
    assert user_torch_models.Told.seen == [("multiclass", 3, 6)] * 2
    assert not torch.equal(module_of(loaded).scale, torch.full((3,), 2.0))
    assert loaded.predict_proba(flowers[0]).tobytes() == trainer.predict_proba(flowers[0]).tobytes()


# Its own training step.


def test_a_keyword_of_the_training_step_is_scheduled_by_its_name(tiny):
    schedule = {"noise": {"type": "exponential", "initial": 0.5, "multiplier": 0.5}}

    metrics = tiny(model=own("Noisy"), training={"epochs": 3, "schedule": schedule}).train()["metrics"]

    assert metrics["noise"] == [0.5, 0.25, 0.125]
    assert metrics["train/noise"] == [0.5, 0.25, 0.125]


def test_a_keyword_that_is_not_scheduled_keeps_its_default(tiny):
    metrics = tiny(model=own("Noisy"), training={"epochs": 2}).train()["metrics"]

    assert metrics["train/noise"] == pytest.approx([0.1, 0.1])


def test_a_keyword_that_changes_from_step_to_step_is_logged_as_its_mean(tiny):
    schedule = {"noise": {"type": "linear_warmup", "initial": 0.4, "length": 4}}
    training = {"epochs": 2, "batch_size": 30, "schedule": schedule}

    metrics = tiny(model=own("Noisy"), training=training, samples=PARTS).train()["metrics"]

    assert metrics["train/noise"] == pytest.approx([(0.0 + 0.1 + 0.2) / 3, (0.3 + 0.4 + 0.4) / 3])
    assert metrics["noise"] == pytest.approx([0.2, 0.4])


@pytest.mark.parametrize("name", ["Default", "Noisy"])
def test_a_scheduled_value_that_nobody_takes_is_refused(tiny, name):
    with pytest.raises(SpecError, match=r"Adam has no value 'nois' that can change"):
        tiny(model=own(name), training={"epochs": 1, "schedule": {"nois": {"type": "constant", "initial": 1.0}}})


def test_a_scheduled_keyword_without_a_first_value_is_refused(tiny):
    with pytest.raises(SpecError, match=r"model\.training\.schedule\.noise: initial is missing"):
        tiny(model=own("Noisy"), training={"epochs": 1, "schedule": {"noise": "cosine"}}).train()


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.filterwarnings("ignore:.*has batch norm:UserWarning")
def test_other_values_of_the_dict_are_means_over_the_rows(tiny, flowers, accumulate):
    X, y = flowers
    training = {"epochs": 2, "batch_size": 64, "accumulate": accumulate}

    result = tiny({"type": "arrays", "X": X, "y": y}, own("Noisy"), training, samples={"train": 1.0}).train()

    assert result["metrics"]["train/first"] == pytest.approx([X[:, 0].mean()] * 2, rel=1e-6)


@pytest.mark.parametrize("step", [1, 4, 5, 6])
def test_values_of_the_dict_survive_an_interruption_within_an_epoch(tiny, step):
    schedule = {"noise": {"type": "cosine", "initial": 0.5, "by": "step"}}
    training = {"epochs": 3, "batch_size": 31, "schedule": schedule}

    whole, resumed = whole_and_resumed(tiny, own("Noisy"), training, step)

    assert resumed.result["metrics"] == whole.result["metrics"]
    assert same_bits(whole, resumed)


# Its own validation and test steps.


def test_what_a_validation_step_works_out_is_logged_in_place_of_the_usual_loss(tiny):
    usual = tiny(model=own("Default"), training={"epochs": 2}, samples=PARTS).train()["metrics"]

    trainer = tiny(model=own("Validating"), training={"epochs": 2, "monitor": None}, samples=PARTS)
    metrics = trainer.train()["metrics"]

    assert metrics["val/loss"] == pytest.approx([2 * loss for loss in usual["val/loss"]])
    assert metrics["val/accuracy"] == usual["val/accuracy"]
    assert len(metrics["val/size"]) == 2
    assert metrics["train/loss"] == usual["train/loss"]  # the numbers that it draws are not those of the dropout
    assert "test/size" not in metrics
    assert metrics["test/loss"] > 0


def test_values_of_a_validation_step_are_means_over_the_rows(tiny):
    X = np.random.default_rng(0).random((700, 4))  # more than one block of an evaluation
    y = np.arange(700) % 3
    data = {"type": "arrays", "X": X, "y": y}
    trainer = tiny(data, own("Measuring"), {"epochs": 1}, samples={"train": 300, "val": 400}, shuffle=False)

    metrics = trainer.train()["metrics"]

    assert metrics["val/first"] == pytest.approx([X[300:, 0].mean()], rel=1e-6)
    assert trainer.evaluate(X, y)["first"] == pytest.approx(X[:, 0].mean(), rel=1e-6)


def test_without_outputs_there_are_no_metrics_but_its_own(tiny):
    result = tiny(
        model=own("Validating", leave_out="outputs"), training={"epochs": 2}, samples={"train": 100, "val": 50}
    ).train()

    assert set(result["metrics"]) == {"train/loss", "val/loss", "val/size", "val/drawn"}
    assert result["best"]["metric"] == "val/loss"


def test_without_a_loss_the_usual_one_is_worked_out_of_the_outputs(tiny):
    usual = tiny(model=own("Default"), training={"epochs": 2}, samples=PARTS).train()["metrics"]

    model = own("Validating", leave_out="loss")
    metrics = tiny(model=model, training={"epochs": 2}, samples=PARTS).train()["metrics"]

    assert metrics["val/loss"] == usual["val/loss"]


@pytest.mark.parametrize("training", [{}, {"ema": {"decay": 0.5}}, {"class_weight": "balanced"}])
def test_the_loss_of_a_validation_step_weighs_nothing_also_with_an_average(tiny, flowers, training):
    X, y = flowers
    order = np.arange(150).reshape(3, 50).T.ravel()  # all species in each part
    data = {"type": "arrays", "X": X[order], "y": y[order], "sample_weight": np.arange(1.0, 151.0)}
    trainer = tiny(data, own("Validating"), {"epochs": 2, "monitor": None, **training}, samples=PARTS, shuffle=False)

    metrics = trainer.train()["metrics"]

    probabilities, labels = trainer.predict_proba(X[order][90:120]), y[order][90:120]
    by_hand = -np.log(probabilities[np.arange(30), np.searchsorted(trainer.classes_.astype(str), labels)]).mean()
    assert metrics["val/loss"][-1] == pytest.approx(2 * by_hand, rel=1e-5)


def test_a_loaded_model_evaluates_with_its_own_step(tiny, tmp_path, flowers):
    trainer = tiny(model=own("Validating"), training={"epochs": 1}, samples=PARTS)
    trainer.train()
    trainer.save(tmp_path / "model.zip")

    loaded = Trainer.load(tmp_path / "model.zip", trust=["user_torch_models:Validating"])

    y = np.unique(flowers[1], return_inverse=True)[1]
    values = [each.evaluate(flowers[0], y) for each in (trainer, loaded)]
    assert values[0]["loss"] == values[1]["loss"]
    assert values[0]["size"] == values[1]["size"]


@pytest.mark.parametrize("monitor", ["val/size", "train/noise"])
def test_a_value_of_its_own_may_be_monitored(tiny, monitor):
    schedule = {"noise": {"type": "switch", "initial": 0.5, "values": {"2": 0.1, "3": 0.7}}}
    training = {"epochs": 5, "monitor": monitor, "schedule": schedule, "early_stopping": {"monitor": monitor}}

    result = tiny(model=own("Measuring"), training=training, samples=PARTS).train()

    values = result["metrics"][monitor]
    assert result["best"]["value"] == min(values)
    assert result["best"]["epoch"] == values.index(min(values)) + 1


@pytest.mark.parametrize(
    ("training", "place"),
    [
        ({"monitor": "val/sise"}, "monitor"),
        ({"early_stopping": {"monitor": "val/sise"}}, r"early_stopping\.monitor"),
        ({"schedule": {"lr": {"type": "plateau", "monitor": "val/sise"}}}, r"schedule\.lr\.monitor"),
    ],
)
def test_a_value_that_its_steps_do_not_give_is_refused_before_the_first_step(tiny, training, place):
    trainer = tiny(model=own("Validating"), training={"epochs": 1, **training}, samples=PARTS)

    with pytest.raises(SpecError, match=rf"{place}: there is no metric 'val/sise'; did you mean 'val/size'"):
        trainer.train()
    assert trainer.result["metrics"] == {}


# Its own optimizers.


def test_groups_of_parameters_keep_their_ratio_under_a_schedule_also_after_a_resume(tiny):
    class Look(Callback):
        def __init__(self):
            self.seen = []

        def on_epoch_begin(self, state):
            self.seen.append([group["lr"] for group in user_torch_models.Groups.last.param_groups])

    training = {"epochs": 4, "batch_size": 40, "schedule": {"type": "exponential", "multiplier": 0.5}}
    look, again = Look(), Look()
    whole = tiny(model=own("Groups"), training=training)
    whole.train([look])
    with pytest.raises(KeyboardInterrupt):
        tiny(model=own("Groups"), training={**training, "checkpoint": {}}).train([Interrupt(7)])
    resumed = tiny(model=own("Groups"), training={**training, "checkpoint": {}})
    resumed.train([again], resume="auto")

    expected = [[0.001 * 0.5**epoch, 0.01 * 0.5**epoch] for epoch in range(4)]
    np.testing.assert_allclose(look.seen, expected)
    np.testing.assert_allclose(again.seen, expected[3:])
    assert whole.result["metrics"]["lr"] == pytest.approx([first for first, _ in expected])
    assert same_bits(whole, resumed)


def test_each_loss_reaches_the_parameters_of_its_own_optimizer_alone():
    torch.manual_seed(0)
    task = Multiclass([0, 1, 2])
    module = user_torch_models.Gan((4,), 3)
    update = Update(build_optimizers(Model(model="linear").training.optimizer, module, torch.device("cpu")))
    batch = Batch(torch.randn(16, 4), torch.arange(16) % 3)
    step = TorchLearner(module, task, torch.device("cpu")).make_step(task.loss("auto"), {})

    torch.manual_seed(1)
    losses = step(batch)
    expected = {
        name: torch.autograd.grad(losses[name], list(part.parameters()), retain_graph=True)
        for name, part in (("generator", module.generator), ("critic", module.critic), ("classes", module.head))
    }
    total = update.backward(losses)

    for name, part in (("generator", module.generator), ("critic", module.critic), ("classes", module.head)):
        for parameter, gradient in zip(part.parameters(), expected[name], strict=True):
            torch.testing.assert_close(parameter.grad, gradient)
    assert total.item() == pytest.approx(sum(losses[name].item() for name in expected))


def test_several_optimizers_learn_as_in_a_loop_written_by_hand(tiny, flowers):
    from gymtrain.data.randomness import mix, order

    X, y = flowers
    data = {"type": "arrays", "X": X, "y": np.unique(y, return_inverse=True)[1]}
    training = {"epochs": 2, "batch_size": 50, "optimizer": {"type": "SGD", "lr": 0.05}}
    trainer = tiny(data, own("Gan"), training, samples={"train": 1.0}, shuffle=False)

    metrics = trainer.train()["metrics"]

    torch.manual_seed(0)
    by_hand = user_torch_models.Gan((4,), 3)
    object.__setattr__(by_hand, "loss_of", nn.functional.cross_entropy)
    inputs, targets = torch.tensor(X, dtype=torch.float32), torch.tensor(data["y"])
    optimizers = by_hand.configure_optimizer(lambda parameters, lr=0.05: torch.optim.SGD(list(parameters), lr=lr))
    parts = {"generator": by_hand.generator, "critic": by_hand.critic, "classes": by_hand.head}
    for epoch in (1, 2):
        torch.manual_seed(mix(0, epoch))
        for rows in order(0, epoch, 150, shuffle=False).split(50):
            losses = by_hand.training_step(Batch(inputs[rows], targets[rows]))
            gradients = {
                name: torch.autograd.grad(losses[name], list(part.parameters()), retain_graph=True)
                for name, part in parts.items()
            }
            for name, part in parts.items():
                for parameter, gradient in zip(part.parameters(), gradients[name], strict=True):
                    parameter.grad = gradient
            for optimizer in optimizers.values():
                optimizer.step()

    for name, tensor in by_hand.state_dict().items():
        torch.testing.assert_close(module_of(trainer).state_dict()[name], tensor)
    sums = [sum(metrics[f"train/{name}"][epoch] for name in parts) for epoch in (0, 1)]
    assert metrics["train/loss"] == pytest.approx(sums, rel=1e-5)
    assert len(metrics["train/fake"]) == 2


@pytest.mark.parametrize("training", [{}, {"accumulate": 2, "clip_grad_norm": 0.1}, {"schedule": "cosine"}])
def test_several_optimizers_go_on_exactly_after_an_interruption(tiny, training):
    training = {"epochs": 3, "batch_size": 20, **training}

    whole, resumed = whole_and_resumed(tiny, own("Gan"), training, 4)

    assert resumed.result["metrics"] == whole.result["metrics"]
    assert same_bits(whole, resumed)


def test_accumulated_losses_of_several_optimizers_are_those_of_a_large_batch(tiny):
    training = {"epochs": 2, "optimizer": {"type": "SGD", "lr": 0.01}}
    small = tiny(model=own("Still"), training={**training, "batch_size": 16, "accumulate": 3})
    large = tiny(model=own("Still"), training={**training, "batch_size": 48})

    losses = [each.train()["metrics"]["train/critic"] for each in (small, large)]

    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name, tensor in state_of(large).items():
        torch.testing.assert_close(state_of(small)[name], tensor, rtol=1e-4, atol=1e-6)


# What it may not return.


@pytest.mark.parametrize(
    ("method", "what", "message"),
    [
        ("setup", "raises", r"model\.model: setup of Wrong failed: 'nothing there'"),
        ("training_step", "raises", r"training_step of Wrong fails on two rows: 'nothing there'"),
        ("training_step", "none", r"training_step of Wrong returned a NoneType as 'loss'; expected tensors of shape"),
        ("training_step", "empty", r"training_step of Wrong returned an empty dict; expected a loss in it"),
        ("training_step", "number", r"training_step of Wrong returned a float as 'loss'; expected tensors of shape"),
        ("training_step", "vector", r"training_step of Wrong returned shape \(3,\) as 'loss'"),
        ("training_step", "detached", r"training_step of Wrong returned nothing that depends on the parameters"),
        ("training_step", "unknown", r"returned a dict with 'lss'; expected the key 'loss', or the name of an opti"),
        ("validation_step", "raises", r"validation_step of Wrong fails on two rows: 'nothing there'"),
        ("validation_step", "none", r"validation_step of Wrong fails on two rows"),
        ("validation_step", "number", r"validation_step of Wrong returned a float as 'loss'"),
        ("validation_step", "outputs", r"returned outputs of shape \(2, 7\) for two rows; expected shape \(2, 3\)"),
        ("test_step", "outputs", r"test_step of Wrong returned outputs of shape \(2, 7\) for two rows"),
        ("configure_optimizer", "raises", r"configure_optimizer of Wrong failed: 'nothing there'"),
        ("configure_optimizer", "none", r"configure_optimizer of Wrong returned 'NoneType'; expected an optimizer"),
        ("configure_optimizer", "empty", r"configure_optimizer of Wrong returned an empty dict; expected an opti"),
        ("configure_optimizer", "vector", r"configure_optimizer of Wrong returned 'Tensor'; expected an optimizer"),
        ("final_state", "names", r"final_state of Wrong returned 'other', which the state dict does not have"),
        ("final_state", "halves", r"final_state of Wrong returned 'body\.0\.weight', .* in another shape or type"),
        ("has_improved", "raises", r"has_improved of Wrong failed: 'nothing there'"),
        ("should_stop", "raises", r"should_stop of Wrong failed: 'nothing there'"),
    ],
)
def test_what_a_method_returns_wrongly_is_told_in_its_name(tiny, method, what, message):
    trainer = tiny(model=own("Wrong", method=method, what=what), training={"epochs": 1}, samples=PARTS)

    with pytest.raises(TrainingError, match=message):
        trainer.train()


# What it keeps, and when it stops.


def test_a_part_that_no_prediction_needs_is_left_out_of_the_bundle_and_not_of_checkpoints(tiny, tmp_path, flowers):
    training = {"epochs": 3, "batch_size": 40}
    whole, resumed = whole_and_resumed(tiny, own("Halved"), training, 5)
    whole.save(tmp_path / "model.zip")

    loaded = Trainer.load(tmp_path / "model.zip", trust=["user_torch_models:Halved"])

    assert same_bits(whole, resumed)
    with open_bundle(tmp_path / "model.zip") as bundle:
        assert {name.partition(".")[0] for name in bundle.weights()} == {"body"}
    with open_bundle(max(Path(resumed.result["run"]["checkpoint_dir"]).iterdir())) as bundle:
        assert {"module/decoder.weight", "module/decoder.bias"} <= set(bundle.training().tensors)
    assert loaded.predict_proba(flowers[0]).tobytes() == whole.predict_proba(flowers[0]).tobytes()
    assert resumed.predict_proba(flowers[0]).tobytes() == whole.predict_proba(flowers[0]).tobytes()


def test_the_best_epoch_is_the_one_that_the_model_says(tiny):
    trainer = tiny(model=own("Choosing"), training={"epochs": 3}, samples=PARTS)
    shorter = tiny(model=own("Ordinary"), training={"epochs": 2, "monitor": None}, samples=PARTS)

    best = trainer.train()["best"]
    shorter.train()

    metrics = ["train/loss", "val/accuracy", "val/loss"]
    assert module_of(trainer).told == [(metrics, []), (metrics, []), (metrics, metrics)]
    assert best == {"epoch": 2, "metric": "val/loss", "value": trainer.result["metrics"]["val/loss"][1], "mode": "min"}
    X = np.random.default_rng(0).random((5, 4))
    assert trainer.predict_proba(X).tobytes() == shorter.predict_proba(X).tobytes()


def test_a_model_may_choose_its_best_epoch_without_a_metric(tiny):
    result = tiny(model=own("Choosing"), training={"epochs": 3}).train()

    assert result["best"] == {"epoch": 2, "metric": None, "value": None, "mode": "min"}


def test_with_the_monitor_off_the_last_weights_stay_whatever_the_model_says(tiny):
    trainer = tiny(model=own("Choosing"), training={"epochs": 3, "monitor": None}, samples=PARTS)

    assert trainer.train()["best"] is None
    assert module_of(trainer).told == []


def test_a_model_stops_its_training_and_is_not_trained_on_by_a_resume(tiny):
    def make(model):
        return tiny(model=model, training={"epochs": 9, "monitor": None, "checkpoint": {}})

    before = make(own("Choosing")).train()
    after = make(own("Choosing")).train(resume="auto")

    assert before["stop_reason"] == after["stop_reason"] == "model"
    assert after["metrics"] == before["metrics"]
    assert len(before["metrics"]["train/loss"]) == 4


def test_such_a_model_is_loaded_only_where_it_is_trusted(tiny, tmp_path, flowers):
    trainer = tiny(model=own("Noisy"))
    trainer.train()
    trainer.save(tmp_path / "model.zip")

    with pytest.raises(ValueError, match=r"user_torch_models:Noisy"):
        Trainer.load(tmp_path / "model.zip")
    loaded = Trainer.load(tmp_path / "model.zip", trust=["user_torch_models:Noisy"])
    assert loaded.predict_proba(flowers[0]).tobytes() == trainer.predict_proba(flowers[0]).tobytes()


class Halves(TorchModel):
    """Two layers, whose optimizers and final state the test chooses."""

    make_optimizers: Any = None
    left_out: tuple[str, ...] = ()

    def __init__(self, input_shape: tuple[int, ...], output_size: int) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(input_shape[0], 8), nn.Linear(8, output_size)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(rows).relu())

    def configure_optimizer(self, make):
        return super().configure_optimizer(make) if self.make_optimizers is None else self.make_optimizers(make)

    def final_state(self):
        return {name: each for name, each in self.state_dict().items() if not name.startswith(self.left_out or "?")}


@pytest.fixture
def halves(monkeypatch):
    register("model", "halves")(Halves)
    return monkeypatch


def test_groups_may_be_given_as_generators(tiny, halves):
    groups = [{"params": 0, "lr": 0.1}, {"params": 0, "lr": 0.01}]
    halves.setattr(
        Halves,
        "make_optimizers",
        lambda self, make: make(
            [
                {**group, "params": layer.parameters()}
                for group, layer in zip(groups, (self.body, self.head), strict=True)
            ]
        ),
    )

    losses = tiny(model="halves", training={"epochs": 5}).train()["metrics"]["train/loss"]

    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda self, make: make([]), "configure_optimizer made an optimizer of no parameters"),
        (
            lambda self, make: {"a": make(self.parameters()), "b": make(self.head.parameters())},
            r"gave a parameter of shape \(3, 8\) to both 'a' and 'b'",
        ),
    ],
)
def test_optimizers_that_cannot_be_meant_are_refused(tiny, halves, made, message):
    halves.setattr(Halves, "make_optimizers", made)

    with pytest.raises(TrainingError, match=message):
        tiny(model="halves").train()


def test_a_final_state_that_a_prediction_cannot_do_with_is_not_saved(tiny, halves, tmp_path):
    halves.setattr(Halves, "left_out", ("head",))
    trainer = tiny(model="halves")
    trainer.train()

    with pytest.raises(SaveError, match="final_state of Halves leaves out weights that a prediction needs"):
        trainer.save(tmp_path / "model.zip")

    assert not (tmp_path / "model.zip").exists()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("trainig_step", "training_step"),
        ("train_step", "training_step"),
        ("validation_steps", "validation_step"),
        ("configure_optimizers", "configure_optimizer"),
        ("set_up", "setup"),
        ("should_stop_", "should_stop"),
    ],
)
def test_a_method_whose_name_is_nearly_one_that_training_calls_is_asked_about(name, meant):
    with pytest.warns(UserWarning, match=rf"^Mine\.{name}: training calls no such method; did you mean '{meant}'\?$"):
        type("Mine", (TorchModel,), {name: lambda self: None})


@pytest.mark.parametrize(
    "name", ["training_step", "step", "initial_state", "loss", "encode", "_trainig_step", "forward"]
)
def test_methods_of_ones_own_may_be_called_as_one_likes(name):
    type("Mine", (TorchModel,), {name: lambda self: None, "training_steps": 5})


def test_a_helper_of_a_method_that_is_there_may_be_called_nearly_so():
    type("Mine", (TorchModel,), {"test_step": lambda self, batch: None, "test_steps": lambda self: None})
