"""Disks that are full, broken or read-only."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fault_injection import Interposer, Operation, failing, fill, names_below
from faulty_training import (
    AtEpoch,
    all_warnings,
    checkpoints,
    epochs_of,
    is_watched,
    make_trainer,
    outcome,
    wait_for_checkpoints,
)

from gymtrain import Callback, Trainer, TrainingError
from gymtrain.bundle import open_bundle

pytestmark = pytest.mark.usefixtures("one_thread")

Mount = Callable[[str], Path]
Before = Callable[[int, Operation], int | None]
ROWS = np.zeros((2, 4))


@contextlib.contextmanager
def second_checkpoint(root: Path, before: Before) -> Iterator[Callback]:
    """Yields a callback that interposes while the checkpoint of the second epoch of three is written."""
    with contextlib.ExitStack() as stack:

        def begin() -> None:
            wait_for_checkpoints(root, 1)
            stack.enter_context(Interposer(lambda path: "checkpoints" in path and is_watched(root)(path), before))

        yield AtEpoch(2, begin)


def assert_it_goes_on_with_one_warning(root: Path, before: Before, message: str) -> None:
    trainer = make_trainer(root)
    with second_checkpoint(root, before) as callback, pytest.warns(UserWarning, match="checkpoint") as caught:
        result = trainer.train([callback])

    warned = [str(warning.message) for warning in caught]
    assert len(warned) == 1
    assert message in warned[0]
    assert str(root) in warned[0]
    assert result["status"] == "FINISHED"
    assert len(result["metrics"]["train/loss"]) == 3
    for path in wait_for_checkpoints(root, 2):
        open_bundle(path).close()
    assert epochs_of(checkpoints(root))[-1] == 3
    assert names_below(root, ".*") == []


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("create", errno.ENOSPC),
        ("write", errno.ENOSPC),
        ("write", errno.EDQUOT),
        ("write", errno.EIO),
        ("fsync", errno.EIO),
        ("fsync", errno.ENOSPC),
        ("close", errno.EIO),
        ("rename", errno.EIO),
        ("rename", errno.EROFS),
    ],
)
def test_a_checkpoint_that_cannot_be_written_is_warned_of_and_training_goes_on(kind, number, tmp_path):
    assert_it_goes_on_with_one_warning(tmp_path, failing(1, number, (kind,)), os.strerror(number))
    assert 1 in epochs_of(checkpoints(tmp_path))


def test_a_directory_that_cannot_be_flushed_is_warned_of_and_training_goes_on(tmp_path):
    assert_it_goes_on_with_one_warning(tmp_path, failing(2, errno.EIO, ("fsync",)), os.strerror(errno.EIO))


@pytest.mark.slow
def test_training_goes_on_whichever_write_of_a_checkpoint_fails(tmp_path):
    writes: list[Operation] = []
    (tmp_path / "whole").mkdir()
    with second_checkpoint(
        tmp_path / "whole", lambda _, operation: writes.append(operation) if operation.kind == "write" else None
    ) as callback:
        make_trainer(tmp_path / "whole", epochs=2).train([callback])
    assert len(writes) > 10

    for at in range(1, len(writes) + 1):
        number = [errno.ENOSPC, errno.EDQUOT, errno.EIO][at % 3]
        assert_it_goes_on_with_one_warning(tmp_path / str(at), failing(at, number), os.strerror(number))
        assert 1 in epochs_of(checkpoints(tmp_path / str(at)))


def half_of_it(_: int, operation: Operation) -> int | None:
    return (len(operation.data) + 1) // 2 if operation.kind == "write" else None


def test_a_disk_that_takes_a_write_in_pieces_gets_the_same_checkpoint(tmp_path, whole):
    with Interposer(is_watched(tmp_path), half_of_it):
        make_trainer(tmp_path, epochs=2).train()
        wait_for_checkpoints(tmp_path, 2)

    trainer = make_trainer(tmp_path, epochs=4)
    trainer.train(resume=checkpoints(tmp_path)[-1])

    assert outcome(trainer) == whole


def test_a_full_disk_does_not_end_a_training(disk: Mount):
    root = disk("size=64k")
    trainer = make_trainer(root)
    trainer = Trainer(
        dataset={"dataset": "iris"},
        model={
            "model": {"type": "mlp", "hidden": [200, 200]},
            "training": {"epochs": 3, "checkpoint": {}, "validation_split": 0.2},
        },
        tracking={"root": str(root)},
    )

    with pytest.warns(UserWarning, match=r"No space left on device.*\d bytes are needed, [\d,]+ are free"):
        result = trainer.train()

    assert result["status"] == "FINISHED"
    assert trainer.predict(ROWS).shape == (2,)
    assert checkpoints(root) == []
    assert names_below(root, ".*") == []


def test_a_limit_on_the_size_of_files_does_not_end_a_training(tmp_path: Path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    trainer = make_trainer(tmp_path, epochs=2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))  # Python ignores the signal that comes with it
    try:
        with all_warnings() as told:
            result = trainer.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert any(re.search(r"File too large: '.*checkpoints", message) for message in told)
    assert result["status"] == "FINISHED"
    assert names_below(tmp_path, "*.zip") == names_below(tmp_path, ".*") == []


def test_a_disk_that_fills_up_loses_no_metric_of_the_trackers_and_not_the_model(kept, disk: Mount):
    root = disk("size=256k")
    trainer, recorded = kept(training={"epochs": 60}, tracking={"root": str(root)})

    with all_warnings() as told:
        trainer.train([AtEpoch(2, lambda: fill(root))])

    # One when it begins, and at the end one of what was lost.
    assert len([message for message in told if "journal" in message and "unclosed" not in message]) in (1, 2)
    assert len([message for message in told if "the result is in trainer.result alone" in message]) == 1
    assert [step for step, _ in recorded().metrics["train/loss"]] == list(range(1, 61))
    assert recorded().status == trainer.result["status"] == "FINISHED"
    assert trainer.predict(ROWS).shape == (2,)


def test_a_journal_on_a_full_disk_is_closed(tiny, disk: Mount):
    root = disk("size=256k")
    trainer = tiny(training={"epochs": 60}, tracking={"root": str(root)})

    with all_warnings() as told:
        trainer.train([AtEpoch(2, lambda: fill(root))])

    assert any("journal" in message and "unclosed" not in message for message in told)
    assert [message for message in told if message.startswith("unclosed file")] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # a thread of TensorBoard's
def test_tensorboard_on_a_full_disk_does_not_end_a_training(tiny, disk: Mount):
    root = disk("size=256k")
    trainer = tiny(training={"epochs": 3}, tracking={"root": str(root), "trackers": [{"type": "tensorboard"}]})

    with all_warnings() as told:
        result = trainer.train([AtEpoch(2, lambda: fill(root))])

    assert result["status"] == "FINISHED"
    # One when it begins, and at the end one of what is missing.
    assert len([message for message in told if message.startswith("tracker 'tensorboard'")]) in (1, 2)


def test_a_full_disk_costs_a_run_its_bundle_and_nothing_else(tiny, disk: Mount):
    root = disk("size=128k")
    trainer = tiny(
        model={"type": "mlp", "hidden": [200, 200]},
        tracking={
            "root": str(root),
            "trackers": [{"type": "jsonl"}],
            "log_system_metrics": False,
            "log_figures": False,
        },
    )

    with pytest.warns(UserWarning, match="the run keeps no bundle: .*No space left on device") as told:
        result = trainer.train()

    assert len(told) == 1
    assert result["status"] == "FINISHED"
    assert names_below(root, "*.zip") == []
    assert '"gymtrain.bundle":"not saved: ' in (Path(result["run"]["run_dir"]) / "metrics.jsonl").read_text()


@pytest.fixture
def saved(tmp_path: Path, iris_trainer: Trainer) -> Path:
    (tmp_path / "place").mkdir()
    path = tmp_path / "place" / "model.zip"
    iris_trainer.save(path)
    return path


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("kind", ["create", "write", "fsync", "close", "rename"])
def test_a_save_that_fails_leaves_the_old_bundle_and_names_the_path(kind, number, saved: Path, iris_trainer: Trainer):
    before = saved.read_bytes()

    interposer = Interposer(is_watched(saved.parent), failing(1, number, (kind,)))
    with pytest.raises(OSError, match=re.escape(str(saved))) as caught, interposer:
        iris_trainer.save(saved)

    assert caught.value.errno == number
    assert caught.value.filename == str(saved)
    assert os.listdir(saved.parent) == ["model.zip"]
    assert saved.read_bytes() == before


@pytest.mark.slow
def test_a_save_that_fails_at_any_write_leaves_the_old_bundle(saved: Path, iris_trainer: Trainer):
    before = saved.read_bytes()
    operations: list[Operation] = []
    with Interposer(is_watched(saved.parent), lambda _, operation: operations.append(operation)):
        iris_trainer.save(saved.with_name("other.zip"))
    saved.with_name("other.zip").unlink()
    writes = [operation for operation in operations if operation.kind == "write"]

    for at in range(1, len(writes) + 1):
        interposer = Interposer(is_watched(saved.parent), failing(at, errno.ENOSPC))
        with pytest.raises(OSError, match="bytes are needed"), interposer:
            iris_trainer.save(saved)
        assert os.listdir(saved.parent) == ["model.zip"]
        assert saved.read_bytes() == before


def test_a_full_disk_is_told_with_the_path_and_the_bytes_needed_and_free(iris_trainer: Trainer, disk: Mount):
    place = disk("size=16k")
    iris_trainer.save(place / "model.zip")
    before = (place / "model.zip").read_bytes()
    (place / "ballast").write_bytes(bytes(4096))

    with pytest.raises(OSError, match=r"No space left on device") as caught:
        iris_trainer.save(place / "model.zip")

    told = re.search(r"about ([\d,]+) bytes are needed, ([\d,]+) are free: '(.*)'", str(caught.value))
    assert told is not None
    needed, free = (int(number.replace(",", "")) for number in told.groups()[:2])
    assert len(before) / 2 < needed < len(before) * 4
    assert free == shutil.disk_usage(place).free
    assert told[3] == str(place / "model.zip")
    assert sorted(os.listdir(place)) == ["ballast", "model.zip"]
    assert (place / "model.zip").read_bytes() == before


class Steps(Callback):
    """Counts the steps."""

    taken = 0

    def on_step_end(self, state: Any) -> None:
        self.taken += 1


@pytest.mark.parametrize("below", ["", "runs", "a/b/c"])
def test_a_root_that_cannot_be_written_to_is_refused_before_the_first_step(below: str, read_only: Path):
    steps = Steps()

    with pytest.raises(TrainingError, match=rf"tracking\.root: cannot write to '{re.escape(str(read_only))}.*another"):
        make_trainer(read_only / below).train([steps])

    assert steps.taken == 0


def test_a_root_below_a_file_is_refused_before_the_first_step(tmp_path: Path):
    (tmp_path / "file").touch()
    steps = Steps()

    with pytest.raises(TrainingError, match=r"tracking\.root: cannot write to .*file/runs"):
        make_trainer(tmp_path / "file" / "runs").train([steps])

    assert steps.taken == 0


def test_a_bundle_in_a_place_that_cannot_be_written_to_is_refused_with_the_path(read_only: Path, iris_trainer: Trainer):
    path = read_only / "model.zip"

    with pytest.raises(OSError, match=re.escape(str(path))) as caught:
        iris_trainer.save(path)

    assert caught.value.filename == str(path)
