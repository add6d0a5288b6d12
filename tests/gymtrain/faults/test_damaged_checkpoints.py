"""Checkpoints that bits have rotted in: found, named, and passed over for the one before."""

from __future__ import annotations

import os
import random
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from faulty_training import checkpoints, make_trainer, outcome

from gymtrain import Trainer, TrainingError

pytestmark = pytest.mark.usefixtures("one_thread")

CUTS = range(10)
FLIPS = range(50)


def resumed(root: Path, resume: str | Path = "auto") -> tuple[Trainer, list[str]]:
    """Go on with the training of four epochs; return what was warned of, too."""
    trainer = make_trainer(root, epochs=4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.train(resume=resume)
    return trainer, [str(warning.message) for warning in caught]


def assert_the_one_before_is_taken(root: Path, damaged: Path, before: Path, whole: tuple[Any, ...]) -> None:
    trainer, told = resumed(root)

    assert len(told) == 1
    assert str(damaged) in told[0]
    assert re.search(r"resume: .*; it is passed over", told[0])
    assert trainer.result["resumed_from"] == str(before)
    assert outcome(trainer) == whole
    assert damaged.exists()


@pytest.mark.parametrize("tenths", CUTS)
def test_a_newest_checkpoint_that_was_cut_off_is_passed_over(tenths: int, interrupted: Path, whole):
    before, newest = checkpoints(interrupted)
    content = newest.read_bytes()
    newest.write_bytes(content[: len(content) * tenths // 10])

    assert_the_one_before_is_taken(interrupted, newest, before, whole)


@pytest.mark.parametrize("fiftieths", FLIPS)
def test_a_newest_checkpoint_with_one_bit_that_is_wrong_is_passed_over(fiftieths: int, interrupted: Path, whole):
    before, newest = checkpoints(interrupted)
    content = bytearray(newest.read_bytes())
    content[len(content) * fiftieths // len(FLIPS)] ^= 1 << fiftieths % 8
    newest.write_bytes(content)

    assert_the_one_before_is_taken(interrupted, newest, before, whole)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    """Leave what some file systems leave after a power cut: the length is right, the blocks were never written."""
    path.write_bytes(bytes(path.stat().st_size))


def zeros_at_the_end(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4096] + bytes(len(content) - 4096))


def garbage(path: Path) -> None:
    path.write_bytes(random.Random(0).randbytes(path.stat().st_size))


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def dangling_link(path: Path) -> None:
    """Leave what looks like a file that another training deletes while this one looks for it."""
    path.unlink()
    path.symlink_to("nowhere.zip")


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES = [empty, zeros, zeros_at_the_end, garbage, directory, dangling_link, link_to_itself, pipe]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_newest_checkpoint_that_is_something_else_is_passed_over(damage, interrupted: Path, whole):
    before, newest = checkpoints(interrupted)

    damage(newest)
    trainer, told = resumed(interrupted)

    assert [str(newest) in message for message in told] == [True]
    assert trainer.result["resumed_from"] == str(before)
    assert outcome(trainer) == whole


@pytest.mark.parametrize("of", ["run", "checkpoints"])
def test_where_all_are_damaged_one_error_lists_each_with_its_reason(of: str, interrupted: Path):
    one, other = checkpoints(interrupted)
    one.write_bytes(one.read_bytes()[:-50])
    content = bytearray(other.read_bytes())
    content[200] ^= 1
    other.write_bytes(content)
    left = [path.read_bytes() for path in (one, other)]

    trainer = make_trainer(interrupted, epochs=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(TrainingError, match=r"resume: there is no checkpoint in .* that can be read") as caught:
            trainer.train(resume=one.parent.parent if of == "run" else one.parent)

    told = str(caught.value)
    assert re.search(rf"{re.escape(one.name)}.*: .*(the end is missing|cut)", told)
    assert re.search(rf"{re.escape(other.name)}.*: .*(CRC|SHA-256|digest|damaged|inflate|contradicts)", told)
    assert [path.read_bytes() for path in (one, other)] == left
    assert checkpoints(interrupted) == [one, other]


def test_where_all_are_damaged_auto_names_each_deletes_none_and_begins_anew(interrupted: Path, whole):
    damaged = checkpoints(interrupted)
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-50])

    trainer, told = resumed(interrupted)

    assert all(any(str(path) in message for message in told) for path in damaged)
    assert trainer.result["resumed_from"] is None
    assert all(path.exists() for path in damaged)
    assert outcome(trainer) == whole


def test_files_of_others_among_the_checkpoints_are_no_obstacle(interrupted: Path, whole):
    place = checkpoints(interrupted)[0].parent
    (place / "notes.txt").write_text("mine")
    (place / "epoch-000003.zip.part").write_bytes(b"PK")
    (place / ".nfs0000000000000001").write_bytes(b"")
    (place.parent / "other").mkdir()

    trainer, told = resumed(interrupted)

    assert told == []
    assert outcome(trainer) == whole
    assert (place / "notes.txt").read_text() == "mine"
