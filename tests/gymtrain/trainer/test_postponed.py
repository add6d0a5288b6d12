from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_forge import take_apart
from hostile_states import replaced

from gymtrain import BundleError, SpecError, Trainer, register
from gymtrain.data.preprocessors import Preprocessor
from gymtrain.registry import UnknownTypeError
from gymtrain.specs.components import Absent, Postponed

ROWS = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)


@register("preprocessor", "as_they_are")
class AsTheyAre(Preprocessor):
    def transform(self, X: Any) -> Any:
        return X


def train(root: Path, **training: Any) -> Trainer:
    trainer = Trainer(
        dataset={"dataset": {"type": "iris"}, "preprocessors": ["as_they_are"]},
        model={"model": {"type": "linear"}, "training": {"epochs": 1, "metrics": ["f1"], "loss": "nll", **training}},
        tracking={"root": str(root), "trackers": ["jsonl"]},
    )
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("saved")
    train(root, schedule={"lr": "cosine", "momentum": "cosine"}, optimizer="SGD").save(root / "iris.zip")
    return root / "iris.zip"


def changed(saved: Path, *changes: tuple[tuple[str | int, ...], Any]) -> bytes:
    """Return the bundle with other values in its spec."""
    forge = take_apart(saved.read_bytes())
    spec = json.loads(forge.part("spec.json").content)
    for place, value in changes:
        spec = replaced(spec, place, value)
    return forge.replace("spec.json", json.dumps(spec).encode()).pack()


def test_what_only_a_training_needs_is_looked_up_by_who_asks_for_it(saved: Path):
    trainer = Trainer.load(saved)
    trainer.predict(ROWS)
    training, dataset = trainer._experiment.model.training, trainer._experiment.dataset
    components = [training.optimizer, training.loss, training.metrics[0].component, *training.schedule.values()]

    assert not any("found" in vars(each) for each in [*components, dataset.dataset])
    assert [type(each) for each in components] == [Postponed] * 5
    assert training.optimizer.arguments["lr"] == 0.001
    assert "found" in vars(training.optimizer)


def test_a_trainer_out_of_a_file_has_the_same_spec_and_trains_the_same(saved: Path, tmp_path: Path):
    trainer = Trainer.load(saved)
    spec = json.loads(take_apart(saved.read_bytes()).part("spec.json").content)

    assert trainer.to_dict() == spec == Trainer.from_dict(spec).to_dict()
    assert trainer.reproduce()["same_bits"]


def test_a_module_that_is_trusted_is_imported_at_once_because_it_may_register_what_else_is_named(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "their_module.py").write_text(
        "from gymtrain import register\n"
        "from gymtrain.data.sources import Iris\n"
        "from gymtrain.registry import find\n"
        "class Flowers(Iris): pass\n"
        "register('model', 'their_net')(find('model', 'linear'))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    theirs = (("dataset", "dataset", "type"), "their_module:Flowers"), (("model", "model", "type"), "their_net")

    trainer = Trainer.load(changed(saved, *theirs), trust=["their_module:Flowers"])

    assert trainer.predict(ROWS).shape == (40,)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda trainer: pickle.loads(pickle.dumps(trainer))])
def test_a_copy_needs_nothing_of_what_the_caller_said_of_other_names(saved: Path, copied: Callable[[Trainer], Trainer]):
    trainer = Trainer.load(saved, types={"another": lambda: None})

    assert copied(trainer).to_dict() == trainer.to_dict()


def test_an_optimizer_that_is_not_here_is_missed_by_who_trains(saved: Path):
    trainer = Trainer.load(changed(saved, (("model", "training", "optimizer", "type"), "somebodys")))

    trainer.predict(ROWS)
    assert isinstance(trainer._experiment.model.training.optimizer.target, Absent)
    with pytest.raises(UnknownTypeError, match="'somebodys' is not a known optimizer"):
        trainer.reproduce()


@pytest.mark.parametrize(
    ("schedules", "message"),
    [
        ({"wings": {"type": "cosine"}}, r"model.training.schedule: SGD has no value 'wings' that can change"),
        ({"momentum": {"type": "StepLR", "step_size": 1}}, r"StepLR of torch changes the learning rate alone"),
    ],
)
def test_a_schedule_that_does_not_fit_is_refused_before_anything_is_trained(
    saved: Path, schedules: dict[str, Any], message: str
):
    trainer = Trainer.load(changed(saved, (("model", "training", "schedule"), schedules)))

    trainer.predict(ROWS)
    for use in (trainer.train, trainer.reproduce, lambda: trainer.train(fast_dev_run=True)):
        with pytest.raises(SpecError, match=message):
            use()


@pytest.mark.parametrize(
    ("place", "value"),
    [(("dataset", "dataset"), 5), (("model", "training", "loss"), [1]), (("tracking", "trackers"), [{"type": 1}])],
)
def test_what_has_not_the_form_of_a_component_is_refused_at_once(
    saved: Path, place: tuple[str | int, ...], value: object
):
    with pytest.raises(BundleError, match=rf"(?s)spec.json: .*{place[-1]}.*: got (5|\[1\]|1); expected a name"):
        Trainer.load(changed(saved, (place, value)))
