"""A process that dies, or a power cut, at any point of a write: what is on the disk is old or new, never half."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import faulty_training
import pytest
from fault_injection import Interposer, Operation, calls_of, crash_states, names_below, operations_of
from faulty_training import AtEpoch, checkpoints, make_trainer, outcome, train_two_epochs, wait_for_checkpoints

from gymtrain import Trainer, inspect
from gymtrain.bundle import atomic_write, open_bundle

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def two_epochs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """The outcome of a training to which nothing happened."""
    return outcome(train_two_epochs(tmp_path_factory.mktemp("unbroken")))


def died_everywhere(kind: str, base: Path) -> Path:
    """Return a directory with one for each place at which a training was killed; `whole` is of one that was not."""
    command = [sys.executable, faulty_training.__file__, kind, str(base)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == faulty_training.NO_TRACING:
        pytest.skip("strace may not trace processes here")
    assert done.returncode == 0, done.stderr
    return base


@pytest.fixture(scope="module")
def interposed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return died_everywhere("interposed", tmp_path_factory.mktemp("interposed"))


@pytest.fixture(scope="module")
def strace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    return died_everywhere("strace", tmp_path_factory.mktemp("strace"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["interposed", "strace"])
def test_a_process_that_is_killed_at_any_point_of_a_write_leaves_the_old_or_the_new(kind, two_epochs, request):
    roots = [root for root in sorted(request.getfixturevalue(kind).iterdir()) if root.name[:3].isdigit()]
    assert len(roots) > 40

    for root in roots:
        assert_old_or_new(root)
    for root in {kind_of(root): root for root in roots}.values():
        assert_goes_on(root, two_epochs)


def assert_old_or_new(root: Path) -> None:
    found = checkpoints(root)
    assert found, f"{root.name}: neither the old nor the new checkpoint is there"
    for path in found:
        open_bundle(path).close()
    assert len(inspect(root / "model.zip")["results"]["metrics"]["train/loss"]) in (1, 2)
    Trainer.load(root / "model.zip")


def kind_of(root: Path) -> tuple[Any, ...]:
    """Return what two places of death have in common after which the same training goes on."""
    leftovers = sorted(len(path.relative_to(root).parts) for path in root.rglob(".*.tmp"))
    whole = sorted(path.name for path in root.rglob("*.*") if path.suffix in (".zip", ".json"))
    return *whole, *leftovers, len(inspect(root / "model.zip")["results"]["metrics"]["train/loss"])


def assert_goes_on(root: Path, expected: tuple[Any, ...]) -> None:
    newest = checkpoints(root)[-1]
    resumed = train_two_epochs(root, resume="auto")
    assert resumed.result["resumed_from"] == str(newest)
    assert outcome(resumed) == expected, root.name


class Recording(NamedTuple):
    """What was below a root before the second checkpoint and after the end, and what was done in between."""

    before: dict[str, bytes]
    operations: list[Operation]
    after: dict[str, bytes]


def files_of(root: Path, named: Path) -> dict[str, bytes]:
    return {str(named / name): (root / name).read_bytes() for name in names_below(root, "*.zip")}


@pytest.fixture(scope="module", params=["interposed", pytest.param("strace", marks=pytest.mark.slow)])
def recording(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    if request.param == "strace":
        base = request.getfixturevalue("strace")
        root = base / "whole"
        is_watched = faulty_training.is_watched(root)
        calls = [call for call in calls_of((base / "strace.log").read_text()) if is_watched(call.file)]
        operations = from_the_first_file(operations_of(calls))
        return Recording(files_of(base / "before", root), operations, files_of(root, root))
    root = tmp_path_factory.mktemp("recorded")
    old = make_trainer(root, epochs=1, keep_last=None)
    old.train()
    old.save(root / "model.zip")
    operations, before = [], {}
    interposer = Interposer(faulty_training.is_watched(root), lambda _, operation: operations.append(operation))

    def begin() -> None:
        wait_for_checkpoints(root)
        before.update(files_of(root, root))
        interposer.__enter__()

    try:
        train_two_epochs(root, [AtEpoch(2, begin)])
    finally:
        interposer.__exit__()
    return Recording(before, from_the_first_file(operations), files_of(root, root))


def from_the_first_file(operations: list[Operation]) -> list[Operation]:
    """Leave out what the thread that wrote the first checkpoint still had to do."""
    return operations[[operation.kind for operation in operations].index("create") :]


def test_a_file_is_written_flushed_renamed_and_its_directory_flushed(recording: Recording):
    renamed = [operation for operation in recording.operations if operation.kind == "rename"]

    assert sorted(Path(operation.target).suffix for operation in renamed) == [".json", ".zip", ".zip"]
    for rename in renamed:
        about = [each for each in recording.operations if rename.path in (each.path, each.target)]
        kinds = [each.kind for each in about if each.kind not in ("write", "chmod", "close")]
        assert kinds == ["create", "fsync", "rename"]
        assert about[-1] == rename
        assert "write" not in [each.kind for each in about[[each.kind for each in about].index("fsync") :]]
        later = recording.operations[recording.operations.index(rename) + 1 :]
        assert Operation("fsync", os.path.dirname(rename.target)) in later


def test_the_old_checkpoint_is_deleted_after_the_new_one_is_on_the_disk(recording: Recording):
    checkpoint_paths = [each for each in recording.operations if "checkpoints" in each.path]
    kinds = [each.kind for each in checkpoint_paths if each.kind in ("rename", "fsync", "unlink")]

    assert kinds == ["fsync", "rename", "fsync", "unlink"]


def test_a_power_cut_at_any_point_leaves_the_old_or_the_new(recording: Recording):
    known = {**recording.before, **recording.after}
    model = next(path for path in known if path.endswith("model.zip"))
    states = list(crash_states(recording.before, recording.operations))
    assert recording.after in [visible(state) for state in states]

    for state in map(visible, states):
        assert any("checkpoints" in path for path in state)
        assert state.pop(model) in (recording.before[model], recording.after[model])
        assert state.items() <= known.items()
    assert len(states) > 100


def visible(state: dict[str, bytes]) -> dict[str, bytes]:
    return {path: content for path, content in state.items() if path.endswith(".zip")}


HALF_A_FILE = """
import os, sys
from gymtrain.bundle import atomic_write

with atomic_write(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), 9)
"""


def leftover_of_a_crash(directory: Path) -> Path:
    """Return what a process leaves that dies while it writes a file in a directory."""
    before = set(directory.iterdir())
    subprocess.run([sys.executable, "-c", HALF_A_FILE, directory / "never.zip"], check=False)
    (left,) = set(directory.iterdir()) - before
    return left


def test_what_a_crash_has_left_is_ignored_and_removed_by_the_next_start(interrupted: Path, whole):
    checkpoint_directory = checkpoints(interrupted)[0].parent
    left = [leftover_of_a_crash(directory) for directory in (checkpoint_directory, checkpoint_directory.parent)]
    newest = checkpoints(interrupted)[-1]

    trainer = make_trainer(interrupted, epochs=4)
    trainer.train(resume="auto")

    assert trainer.result["resumed_from"] == str(newest)
    assert outcome(trainer) == whole
    assert [path.name for path in left if path.exists()] == []


def test_what_a_crash_has_left_is_removed_when_a_run_is_resumed_by_its_path(interrupted: Path):
    directory = checkpoints(interrupted)[0].parent
    left = leftover_of_a_crash(directory)

    make_trainer(interrupted, epochs=4).train(resume=directory)

    assert not left.exists()


def test_what_a_crash_has_left_is_removed_by_the_next_write_there(tmp_path: Path, iris_trainer: Trainer):
    leftover_of_a_crash(tmp_path)

    iris_trainer.save(tmp_path / "model.zip")

    assert os.listdir(tmp_path) == ["model.zip"]


def test_what_somebody_else_is_writing_is_left_alone(tmp_path: Path, iris_trainer: Trainer):
    with atomic_write(tmp_path / "other.json") as file:
        file.write(b"{}")
        iris_trainer.save(tmp_path / "model.zip")

    assert sorted(os.listdir(tmp_path)) == ["model.zip", "other.json"]


DIE_WITH_THE_LOCK = """
import os, sys
from filelock import FileLock

FileLock(sys.argv[1]).acquire()
os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
def test_a_lock_that_a_killed_process_has_left_is_taken_over(tiny, tmp_path: Path):
    lock = tmp_path / "runs" / "mlflow.db.lock"
    lock.parent.mkdir()
    subprocess.run([sys.executable, "-c", DIE_WITH_THE_LOCK, lock], check=False)
    assert lock.exists()

    result = tiny(tracking={"trackers": [{"type": "mlflow"}]}).train()

    assert result["status"] == "FINISHED"
    assert result["run"]["trackers"]["mlflow"]["status"] == "ok"
