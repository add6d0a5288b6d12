from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from bundle_forge import take_apart
from little_shapes import shapes
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file
from torch import nn

from gymtrain import BundleError, Model, SpecError, Trainer, TrainingError, inspect
from gymtrain.bundle import open_bundle
from gymtrain.models.torch_model import TorchModel
from gymtrain.training.optimizers import build_optimizers
from gymtrain.training.scheduled_values import ScheduledValues
from gymtrain.training.schedules import Exponential

NET = {"type": "resnet", "blocks": [1, 1], "width": 8}
ADAM = {"type": "Adam", "lr": 0.01}


pytestmark = pytest.mark.usefixtures("one_thread")


def trainer_of(
    root: Path,
    training: dict[str, Any],
    *,
    model: Any = NET,
    kinds: tuple[str, ...] = ("cross", "square"),
    rows: int = 60,
    **tracking: Any,
) -> Trainer:
    X, y = shapes(rows, 12, kinds, seed=5)
    return Trainer(
        dataset={"dataset": {"type": "arrays", "X": X, "y": y}, "samples": {"train": 32, "test": rows - 32}},
        model={"model": model, "training": {"batch_size": 16, "optimizer": ADAM, "epochs": 1, **training}},
        tracking={"root": str(root), "trackers": [], "log_figures": False, **tracking},
    )


def state_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    state = trainer._predictor.learner.module.state_dict()
    return {name: tensor.clone() for name, tensor in state.items()}


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in one if not torch.equal(one[name], other[name])}


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of what was learned of three kinds of shapes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("learned")
    X, y = shapes(360, 12, ("circle", "cross", "square"))
    trainer = Trainer(
        dataset={"dataset": {"type": "arrays", "X": X, "y": y}},
        model={"model": NET, "training": {"epochs": 12, "batch_size": 16, "optimizer": ADAM}},
        tracking={"root": str(folder), "trackers": [], "log_figures": False},
    )
    trainer.train()
    trainer.save(folder / "learned.zip")
    torch.set_num_threads(before)
    return folder / "learned.zip"


@pytest.fixture(scope="module")
def tensors(learned: Path) -> Path:
    """The same as a file of safetensors, whose names begin with `backbone.`."""
    state = Trainer.load(learned)._predictor.learner.module.state_dict()
    path = learned.with_name("backbone.safetensors")
    save_file({f"backbone.{name}": tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def test_what_was_learned_of_other_shapes_helps_with_few_rows_and_steps(learned, tmp_path):
    start = {"path": learned, "replace": ["head.*"]}
    accuracies = []
    for training in ({}, {"start_from": start}, {"start_from": start, "freeze": ["stem.*", "stage*"]}):
        trainer = trainer_of(tmp_path, {"epochs": 5, **training}, rows=200)
        accuracies.append(trainer.train()["metrics"]["test/accuracy"])

    scratch, tuned, frozen = accuracies
    assert tuned > scratch + 0.1
    assert frozen > scratch + 0.1


@pytest.mark.parametrize("kind", ["bundle", "safetensors"])
def test_weights_come_out_of_a_file_and_the_head_is_made_anew(learned, tensors, tmp_path, kind):
    start: Any = str(learned) if kind == "bundle" else {"path": tensors, "prefix": "backbone."}
    heads = {"head.output.weight", "head.output.bias"}
    trainer = trainer_of(tmp_path, {"start_from": start, "freeze": ["s*"]})

    with pytest.warns(UserWarning, match=r"model\.training\.start_from: 36 of 38") as warned:
        result = trainer.train()

    (message,) = [str(each.message) for each in warned]
    assert "model.training.start_from: 36 of 38 tensors of the model are those of '" in message
    assert message.endswith(
        "made anew: 'head.output.weight', which has shape (3, 16) there and (1, 16) here, 'head.output.bias', which "
        "has shape (3,) there and (1,) here"
    )
    given = {name.removeprefix("backbone."): tensor for name, tensor in load_file(tensors).items()}
    own = state_of(trainer)
    assert {name for name in own if name in given and torch.equal(own[name], given[name])} == own.keys() - heads
    started = result["execution"]["started_from"]
    assert started["loaded"] == 36
    assert set(started["anew"]) == heads
    assert started["left_out"] == []


def test_what_is_replaced_on_purpose_is_not_warned_of_and_made_as_without_a_file(learned, tmp_path):
    anew = trainer_of(tmp_path, {"max_steps": 1, "optimizer": {"type": "SGD", "lr": 1e-30}})
    anew.train()
    start = {"path": learned, "replace": ["head.*", "stage2.*"]}
    trainer = trainer_of(
        tmp_path, {"max_steps": 1, "optimizer": {"type": "SGD", "lr": 1e-30}, "start_from": start, "freeze": ["st*"]}
    )

    trainer.train()

    own, fresh = state_of(trainer), state_of(anew)
    names = [
        name for name, _ in trainer._predictor.learner.module.named_parameters() if name[:6] in ("stage2", "head.o")
    ]
    assert len(names) == 9 + 2
    assert all(torch.allclose(own[name], fresh[name], rtol=0, atol=1e-20) for name in own if name in names)


@pytest.mark.parametrize(
    ("start", "error", "message"),
    [
        (
            {"prefix": "back."},
            SpecError,
            r"start_from\.prefix: no tensor in '.*' begins with 'back\.'; there they begin with 'backbone\.'$",
        ),
        (
            {},
            SpecError,
            r"start_from: no tensor of the model has the name and the shape of one in .*backbone.*, the model",
        ),
        (
            {"prefix": "backbone.", "replace": ["haed.*"]},
            SpecError,
            r"replace: no tensor .* 'haed\.\*'; did you mean 'hea",
        ),
        (
            {"prefix": "backbone.", "strict": True},
            SpecError,
            r"start_from\.strict: 36 of 38 tensors .* made anew: 'head",
        ),
        ({"sha256": "0" * 64}, TrainingError, r"has SHA-256 [0-9a-f]{64}, and the spec means the file with 0{64}; put"),
    ],
)
def test_a_file_that_does_not_fit_is_told_of_before_anything_is_learned(tensors, tmp_path, start, error, message):
    trainer = trainer_of(tmp_path, {"start_from": {"path": tensors, **start}})

    with pytest.raises(error, match=message):
        trainer.train()


@pytest.mark.parametrize(
    ("training", "path", "message"),
    [
        ({"start_from": "none.zip"}, "start_from.path", "^'none.zip' cannot be read: No such file or directory$"),
        ({"start_from": "/"}, "start_from.path", "^'/' cannot be read: Is a directory$"),
        (
            {"start_from": "x.pt"},
            "start_from.path",
            "^got 'x.pt'; such files hold pickles.*safetensors.torch.save_file$",
        ),
        ({"start_from": ""}, "start_from.path", "^got ''; expected text that is not empty$"),
        ({"start_from": 3}, "start_from", "^got 3; expected a dict, or null$"),
        ({"start_from": {"prefix": "x"}}, "start_from.path", "^missing; expected text that is not empty$"),
        ({"start_from": {"path": "x", "sha256": "ab"}}, "start_from.sha256", "^got 'ab'; expected the 64 hexadecimal"),
        ({"start_from": {"path": "x", "replaced": []}}, "start_from.replaced", "did you mean 'replace'"),
        ({"freeze": "stem.*"}, "freeze", r"^got 'stem\.\*'; expected a list of texts that are not empty$"),
        ({"freeze": [""]}, "freeze[0]", "^got ''; expected text that is not empty$"),
        ({"unfreeze_at_epoch": 3}, "unfreeze_at_epoch", "^nothing is frozen; give freeze too, or leave it out$"),
        ({"freeze": ["x"], "unfreeze_at_epoch": 1}, "unfreeze_at_epoch", "^got 1; expected an integer of at least 2"),
        ({"lr_multipliers": 0.1}, "lr_multipliers", "^got 0.1; expected a dict of factors by pattern, such as"),
        (
            {"lr_multipliers": {"head.*": 0}},
            "lr_multipliers.head.*",
            "^got 0; expected a number above 0; freeze is for",
        ),
    ],
    ids=str,
)
def test_a_wrong_setting_is_one_fault(training, path, message):
    with pytest.raises(SpecError) as caught:
        Model(model="resnet", training=training)

    (found,) = caught.value.faults
    assert found.path == f"model.training.{path}"
    assert re.search(message, found.message), found.message


@pytest.mark.parametrize(
    ("training", "error", "message"),
    [
        (
            {"freeze": ["sten.*"]},
            SpecError,
            r"training\.freeze: no tensor of the model is called 'sten\.\*'; did you mean",
        ),
        ({"freeze": ["q"]}, SpecError, r"is called 'q'; there are 'stem\.\*', 'stage1\.\*', 'stage2\.\*', 'head\.\*'$"),
        (
            {"lr_multipliers": {"hed.*": 2.0}},
            SpecError,
            r"training\.lr_multipliers: no tensor .* did you mean 'head\.\*'",
        ),
        ({"freeze": ["*"]}, TrainingError, r"freeze: it leaves nothing of Sequential to be learned; freeze less"),
        (
            {"freeze": ["*"], "unfreeze_at_epoch": 2},
            TrainingError,
            r"freeze: it leaves nothing of Sequential to be learned; freeze less",
        ),
    ],
    ids=str,
)
def test_patterns_that_do_not_fit_the_model_are_refused(tmp_path, training, error, message):
    with pytest.raises(error, match=message):
        trainer_of(tmp_path, training).train()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"model\.training\.start_from\.path: '.*' cannot be read: it is empty; the spec means the file with SHA"),
        (b"PK\x03\x04 and no bundle", r"model\.training\.start_from\.path: .*"),
        (b"\xff" * 100, r"model\.training\.start_from\.path: .* these are not safetensors"),
        ("truncated", r"model\.training\.start_from\.path: .*: the tensors end at byte \d+, the member at byte \d+"),
        ("damaged", r"model\.training\.start_from\.path: .*weights\.safetensors.*"),
    ],
    ids=["empty", "zip", "noise", "truncated", "damaged"],
)
def test_a_file_of_somebody_elses_making_is_refused(learned, tensors, tmp_path, content, message):
    path = tmp_path / "weights"
    if content == "truncated":
        content = tensors.read_bytes()[:-4]
    if content == "damaged":
        whole = learned.read_bytes()
        at = take_apart(whole).part("weights.safetensors").content
        where = whole.index(at) + len(at) // 2
        content = whole[:where] + bytes([whole[where] ^ 1]) + whole[where + 1 :]
    path.write_bytes(content)

    with pytest.raises((BundleError, TrainingError), match=message):
        trainer_of(tmp_path, {"start_from": path}).train()


def test_a_bundle_without_tensors_is_refused(tmp_path):
    model = {"type": "sklearn", "estimator": "RandomForestClassifier", "n_estimators": 2}
    tracking = {"root": str(tmp_path), "trackers": [], "log_figures": False}
    forest = Trainer(dataset={"dataset": "iris"}, model={"model": model}, tracking=tracking)
    forest.train()
    forest.save(tmp_path / "forest.zip")

    with pytest.raises(
        SpecError, match=r"start_from\.prefix: no tensor in '.*forest\.zip' begins with ''; it holds no t"
    ):
        trainer_of(tmp_path, {"start_from": tmp_path / "forest.zip"}).train()


def test_frozen_weights_keep_their_bits_and_nothing_is_kept_of_them(learned, tmp_path):
    training = {
        "epochs": 2,
        "start_from": {"path": learned, "replace": ["head.*"]},
        "freeze": ["stem.*", "stage1.*"],
        "optimizer": {"type": "AdamW", "lr": 0.01, "weight_decay": 0.5},
        "ema": {"decay": 0.5},
        "checkpoint": {},
    }
    trainer = trainer_of(tmp_path, training)

    result = trainer.train()

    given = Trainer.load(learned)._predictor.learner.module.state_dict()
    own = {name: tensor for name, tensor in state_of(trainer).items() if not name.startswith("head.")}
    assert differing(own, given) == {name for name in own if not name.startswith(("stem.", "stage1."))}
    with open_bundle(max(Path(result["run"]["checkpoint_dir"]).glob("*.zip"))) as bundle:
        kept = [name for name in bundle.training().tensors if "exp_avg" in name and "exp_avg_sq" not in name]
    learned_here = [each for each in trainer._predictor.learner.module.parameters() if each.requires_grad]
    assert len(kept) == len(learned_here)
    counted = trainer.estimate(repetitions=1)["parameters"]
    assert counted["trainable"] == sum(each.numel() for each in learned_here)
    assert counted["frozen"] == counted["total"] - counted["trainable"] > 0
    trainer.save(tmp_path / "again.zip")
    assert Trainer.load(tmp_path / "again.zip").estimate(repetitions=1)["parameters"] == counted


def test_frozen_batch_norm_takes_a_batch_of_one_row(tmp_path):
    layers = [{"type": "conv", "filters": 2}, {"type": "dense", "units": 3, "batch_norm": True}]
    model = {"type": "cnn", "layers": layers}

    with pytest.raises(TrainingError, match=r"batch_size: 31 leaves 32 rows with a batch of one"):
        trainer_of(tmp_path, {"batch_size": 31}, model=model).train()
    trainer = trainer_of(tmp_path, {"batch_size": 31, "freeze": ["head.dense1_norm.*"]}, model=model)
    trainer.train()

    norm = trainer._predictor.learner.module.head.dense1_norm
    assert norm.num_batches_tracked == 0
    assert norm.running_mean.tolist() == [0.0, 0.0, 0.0]


def test_frozen_weights_are_learned_from_an_epoch_on_and_a_resumed_training_ends_with_the_same_bits(learned, tmp_path):
    training = {
        "start_from": {"path": learned, "replace": ["head.*"]},
        "freeze": ["stem.*", "stage*"],
        "unfreeze_at_epoch": 3,
        "lr_multipliers": {"st*": 0.1},
        "schedule": {"type": "cosine"},
        "ema": {"decay": 0.5},
        "checkpoint": {"keep_last": 9},
    }
    given = Trainer.load(learned)._predictor.learner.module.state_dict()
    states = {}
    for epochs in (2, 3, 4):
        trainer = trainer_of(tmp_path / str(epochs), {**training, "epochs": epochs, "schedule": None})
        trainer.train()
        states[epochs] = state_of(trainer)
    whole = trainer_of(tmp_path / "whole", {**training, "epochs": 4})
    result = whole.train()

    frozen = {name for name in given if name.startswith("st")}
    assert differing({name: states[2][name] for name in frozen}, given) == set()
    assert differing({name: states[3][name] for name in frozen}, given) == frozen
    for checkpoint in sorted(Path(result["run"]["checkpoint_dir"]).glob("*.zip"))[:-1]:
        moved = shutil.copy(checkpoint, tmp_path / checkpoint.name)
        resumed = trainer_of(tmp_path / f"resumed {checkpoint.name}", {**training, "epochs": 4})
        resumed.train(resume=moved)
        assert differing(state_of(resumed), state_of(whole)) == set()


def test_parameters_learn_at_their_own_share_of_a_scheduled_rate(tmp_path):
    states = {}
    for factors in (None, {"*": 0.5, "3.*": 4.0}, {"*": 1.0}):
        training = {"epochs": 2, "schedule": {"type": "exponential", "multiplier": 0.5}, "lr_multipliers": factors}
        trainer = trainer_of(tmp_path, training, model={"type": "mlp", "hidden": [4]})
        trainer.train()
        states[len(factors or ())] = state_of(trainer)

    assert differing(states[0], states[2]) == {"1.weight", "1.bias", "3.weight", "3.bias"}
    assert differing(states[0], states[1]) == set()


def test_the_rates_of_groups_are_those_of_the_spec_times_their_factors_whatever_a_schedule_does():
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    component = Model(model="mlp", training={"optimizer": {"type": "SGD", "lr": 0.2}}).training.optimizer
    optimizers = build_optimizers(component, module, torch.device("cpu"), {"*": 0.5, "1.*": 4.0, "*.bias": 0.1})
    values = ScheduledValues({"lr": Exponential(initial=0.4, multiplier=0.5)}, [optimizers["loss"]], epochs=2, steps=4)
    groups = optimizers["loss"].param_groups

    def rates() -> list[float]:
        return [group["lr"] for group in groups]

    assert [[tuple(each.shape) for each in group["params"]] for group in groups] == [
        [],
        *([(4, 3)], [(4,)], [(2, 4)], [(2,)]),
    ]
    assert rates() == pytest.approx([0.2, 0.1, 0.01, 0.4, 0.04])
    values.set(0, 0)
    assert rates() == pytest.approx([0.4, 0.2, 0.02, 0.8, 0.08])
    values.set(1, 2)
    assert rates() == pytest.approx([0.2, 0.1, 0.01, 0.4, 0.04])


class OwnGroups(TorchModel):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(2, 2), nn.Linear(2, 1)

    def configure_optimizer(self, make: Any) -> Any:
        return make([{"params": self.body.parameters(), "lr": 0.01}, {"params": self.head.parameters()}], lr=0.3)


def test_groups_of_the_models_own_keep_their_rates_times_the_factors():
    component = Model(model="mlp", training={"optimizer": {"type": "SGD", "lr": 0.2}}).training.optimizer

    made = build_optimizers(component, OwnGroups(), torch.device("cpu"), {"*.weight": 0.5})

    found = [(group["lr"], len(group["params"])) for group in made["loss"].param_groups]
    assert found == [(0.01, 1), (0.005, 1), (0.3, 1), (0.15, 1)]


def test_a_bundle_predicts_and_saves_without_the_file_that_it_began_with(learned, tmp_path):
    began = Path(shutil.copy(learned, tmp_path / "began.zip"))
    trainer = trainer_of(tmp_path, {"start_from": {"path": began, "replace": ["head.*"]}})
    trainer.train()
    trainer.save(tmp_path / "model.zip")
    X, _ = shapes(20, 12)
    digest = hashlib.sha256(began.read_bytes()).hexdigest()

    again = dict(zip(("X", "y"), shapes(60, 12, ("cross", "square"), seed=5), strict=True))
    same = Trainer.load(tmp_path / "model.zip").reproduce(again)
    began.write_bytes(began.read_bytes() + b" ")
    loaded = Trainer.load(tmp_path / "model.zip")
    with pytest.raises(TrainingError, match=rf"start_from\.path: '.*began\.zip' has SHA-256 .*, .* {digest}; put that"):
        loaded.reproduce(again)
    began.unlink()
    with pytest.raises(
        TrainingError, match=rf"began\.zip' cannot be read: No such file or directory; .* SHA-256 {digest}"
    ):
        loaded.reproduce(again)
    loaded.save(tmp_path / "again.zip")

    assert same["same_bits"]
    assert loaded.to_dict()["model"]["training"]["start_from"]["sha256"] == digest
    assert Trainer.load(tmp_path / "again.zip").predict_proba(X).tobytes() == trainer.predict_proba(X).tobytes()


def test_a_training_is_gone_on_with_without_the_file_that_it_began_with(learned, tmp_path):
    began = Path(shutil.copy(learned, tmp_path / "began.zip"))
    trainer = trainer_of(tmp_path, {"start_from": {"path": began, "replace": ["head.*"]}, "checkpoint": {}})
    trainer.train()
    began.unlink()

    result = trainer.train(resume="auto")

    assert result["resumed_from"] is not None


@pytest.mark.slow
def test_what_was_begun_with_is_shown_in_mlflow_and_on_the_card(learned, tmp_path):
    training = {
        "start_from": {"path": learned, "replace": ["head.*"]},
        "freeze": ["stem.*"],
        "lr_multipliers": {"stage*.[01].*": 0.5},
    }
    trainer = trainer_of(tmp_path, training, trackers=[{"type": "mlflow"}])
    result = trainer.train()
    trainer.save(tmp_path / "model.zip")

    run = MlflowClient(result["run"]["tracking_uri"]).get_run(result["run"]["run_id"])

    assert run.data.params["training/start_from/sha256"] == hashlib.sha256(learned.read_bytes()).hexdigest()
    assert run.data.params["training/freeze"] == '["stem.*"]'
    assert [value for name, value in run.data.params.items() if name.startswith("training/lr_multipliers/")] == ["0.5"]
    counts = [run.data.metrics[f"model/params_{name}"] for name in ("total", "trainable")]
    assert counts[0] - counts[1] == 3 * 3 * 3 * 8 + 2 * 8
    readme = inspect(tmp_path / "model.zip")["readme"]
    assert "- start_from: " in readme
    assert '- freeze: ["stem.*"]' in readme


def test_the_range_test_of_the_learning_rate_begins_with_the_weights_too(learned, tmp_path):
    trainer = trainer_of(tmp_path, {"start_from": {"path": learned, "strict": True}})

    with pytest.raises(SpecError, match=r"start_from\.strict"):
        trainer.find_lr(steps=10)
