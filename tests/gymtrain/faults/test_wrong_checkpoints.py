"""Checkpoints of another training, and checkpoints that somebody has made: refused with what is wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile_states
import numpy as np
import pytest
from bundle_corpus import CASES, Case
from bundle_forge import Forge, take_apart
from faulty_training import checkpoints, make_trainer, outcome
from hostile_states import refused_or_harmless

from gymtrain import Trainer, TrainingError

pytestmark = pytest.mark.usefixtures("one_thread")

# What is changed in the spec, and the names by which the error has to call it.
CHANGES: list[tuple[str, dict[str, Any], list[str]]] = [
    ("batch_size", {"batch_size": 16}, ["training/batch_size"]),
    ("seed", {"seed": 1}, ["training/seed"]),
    ("optimizer", {"optimizer": {"type": "SGD", "lr": 0.05}}, ["optimizer/"]),
    ("lr", {"optimizer": {"type": "Adam", "lr": 0.06}}, ["optimizer/lr"]),
    ("schedule", {"schedule": {"lr": {"type": "plateau", "patience": 1}}}, ["schedule/lr/patience"]),
    ("validation_split", {"validation_split": 0.3}, ["training/validation_split"]),
    ("two", {"batch_size": 16, "seed": 1}, ["training/batch_size", "training/seed"]),
]


@pytest.mark.parametrize(("training", "names"), [change[1:] for change in CHANGES], ids=[name for name, *_ in CHANGES])
def test_a_checkpoint_of_another_training_is_refused_with_what_differs(training, names, interrupted: Path):
    trainer = make_trainer(interrupted, epochs=4, **training)

    with pytest.raises(TrainingError, match=r"resume: .* is of another training: ") as caught:
        trainer.train(resume=checkpoints(interrupted)[-1])

    assert all(name in str(caught.value) for name in names)
    assert not trainer.result


def spec(root: Path, **changes: Any) -> dict[str, Any]:
    written: dict[str, Any] = make_trainer(root, epochs=4).to_dict()
    written["model"] |= changes.pop("model", {})
    written["dataset"] |= changes
    return written


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"model": {"model": {"type": "mlp", "hidden": [5], "dropout": 0.1}}}, "model/hidden"),
        ({"model": {"model": {"type": "linear"}}}, "model/type"),
        ({"dataset": {"type": "wine"}}, "dataset/type"),
        ({"samples": {"train": 0.5, "test": 0.5}}, "samples/train"),
        ({"preprocessors": [{"type": "min_max_scaler"}]}, "preprocessors/0/type"),
        ({"seed": 3}, "dataset/seed"),
        ({"shuffle": False}, "shuffle"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_checkpoint_of_another_model_or_dataset_is_refused_with_what_differs(changes, name, interrupted: Path):
    newest = checkpoints(interrupted)[-1]
    trainer = Trainer.from_dict(spec(interrupted, **changes))

    with pytest.raises(TrainingError, match=f"resume: .* is of another training: .*{name}"):
        trainer.train(resume=newest)


def test_auto_passes_over_checkpoints_of_other_trainings_without_a_word(interrupted: Path, whole):
    other = make_trainer(interrupted, epochs=1, batch_size=16)
    other.train()

    trainer = make_trainer(interrupted, epochs=4)
    result = trainer.train(resume="auto")

    assert str(checkpoints(interrupted)[1]) == result["resumed_from"]
    assert outcome(trainer) == whole


def write_rows(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    generator = np.random.default_rng(0)
    rows = change(np.column_stack([generator.normal(size=(60, 2)), np.arange(60) % 2]))
    np.savetxt(path, rows, delimiter=",", header="a,b,y", comments="")


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows + np.array([0, 1e-9, 0]),
        lambda rows: rows[:-1],
        lambda rows: rows[::-1],
        lambda rows: np.column_stack([rows[:, :2], 1 - rows[:, 2]]),
    ],
    ids=["one column", "one row less", "another order", "the labels"],
)
@pytest.mark.parametrize("resume", ["auto", "path"])
def test_a_checkpoint_of_other_rows_is_refused(change, resume: str, tmp_path: Path):
    write_rows(tmp_path / "rows.csv", lambda rows: rows)
    trainer = Trainer(
        dataset={"dataset": {"type": "csv", "path": str(tmp_path / "rows.csv"), "target": "y", "task": "binary"}},
        model={"model": "linear", "training": {"epochs": 1, "checkpoint": {}}},
        tracking={"root": str(tmp_path / "runs")},
    )
    trainer.train()

    write_rows(tmp_path / "rows.csv", change)

    with pytest.raises(TrainingError, match="resume: the rows of the train part are not those"):
        trainer.train(resume="auto" if resume == "auto" else checkpoints(tmp_path / "runs")[-1])


def forged(path: Path, change: Callable[[Forge], object]) -> None:
    forge = take_apart(path.read_bytes())
    change(forge)
    path.write_bytes(forge.pack())


def refused(trainer: Trainer, resume: Path) -> str:
    """Return what is said of a checkpoint that is refused: the warnings and the error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(TrainingError, match="resume: ") as error:
            trainer.train(resume=resume)
    return "\n".join([*(str(warning.message) for warning in caught), str(error.value)])


def test_a_checkpoint_of_a_newer_format_is_refused(interrupted: Path):
    newest = checkpoints(interrupted)[-1]
    forged(newest, lambda forge: forge.set_manifest(format_version=2))

    told = refused(make_trainer(interrupted, epochs=4), newest)

    assert re.search("written in format version 2, this gymtrain reads 1; a newer gymtrain reads it", told)


MORE_MEMBERS = {
    "model.json": b"{}",
    "model.skops": b"skops",
    "preprocessors/001.json": b"{}",
    "preprocessors/001.skops": b"skops",
}


@pytest.fixture(scope="module")
def good(interrupted_once: Path) -> bytes:
    """The bytes of a good checkpoint, with all the members that the corpus makes bad ones of."""
    forge = take_apart(checkpoints(interrupted_once)[-1].read_bytes())
    for name, content in MORE_MEMBERS.items():
        forge.add(name, content)
    return forge.seal().pack()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_hostile_checkpoint_is_refused_with_its_reason(case: Case, good: bytes, interrupted: Path, whole):
    newest = checkpoints(interrupted)[-1]
    newest.write_bytes(case.build(good))
    trainer = make_trainer(interrupted, epochs=4)

    told = refused(trainer, newest) if not case.reason.startswith("weights") else refused_or_harmless(trainer, newest)

    if told is None:  # tensors for predictions, which resuming leaves alone
        assert outcome(trainer) == whole
    else:
        message = re.sub("^[0-9]+ members", "[0-9]+ members", case.message)
        assert re.search(rf"(?s){re.escape(str(newest))}.*({message})", told)


@pytest.mark.slow
def test_a_state_that_somebody_has_changed_is_refused_or_trained_on(interrupted: Path):
    command = [sys.executable, hostile_states.__file__, str(interrupted)]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    # In a process of its own, because it could be killed: kernels of optimizers trust the shapes that they are given.
    attempts = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"{attempts[-1]}\n{done.stderr}"
    assert len(attempts) > 300
    assert [attempt for attempt in attempts if attempt["outcome"] not in ("refused", "trained on", "begun")] == []


def test_a_checkpoint_that_names_a_type_of_others_imports_nothing(interrupted: Path, tmp_path: Path, monkeypatch):
    (tmp_path / "somebodys_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    newest = checkpoints(interrupted)[-1]
    written = json.loads(take_apart(newest.read_bytes()).part("spec.json").content)
    written["model"]["model"] = {"type": "somebodys_module:Net"}
    forged(newest, lambda forge: forge.replace("spec.json", json.dumps(written).encode()))

    told = refused(make_trainer(interrupted, epochs=4), newest)

    assert "is of another training: " in told
