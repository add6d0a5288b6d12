from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from gymtrain import BundleError, SpecError, Trainer
from gymtrain.bundle import Verification, open_bundle
from gymtrain.bundle.source import Source

ROWS = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("saved")
    trainer = Trainer(
        dataset={"dataset": {"type": "arrays", "X": ROWS, "y": (ROWS[:, 0] > 0).astype(int)}},
        model={"model": {"type": "mlp", "hidden": [64]}, "training": {"epochs": 1}},
        tracking={"root": str(directory)},
    )
    trainer.train()
    trainer.save(directory / "good.zip")
    return directory / "good.zip"


@pytest.fixture
def damaged(saved: Path, tmp_path: Path) -> Path:
    """The same with one bit of a weight flipped."""
    data = bytearray(saved.read_bytes())
    with zipfile.ZipFile(saved) as archive:
        info = archive.getinfo("weights.safetensors")
        end = info.header_offset + 30 + len(info.filename) + len(info.extra) + info.file_size
    data[end - 100] ^= 1
    path = tmp_path / "damaged.zip"
    path.write_bytes(data)
    return path


def test_weights_that_are_verified_later_give_the_same_answers(saved: Path):
    trainer = Trainer.load(saved, verify="lazy")

    assert trainer.predict_proba(ROWS).tobytes() == Trainer.load(saved).predict_proba(ROWS).tobytes()


def test_damaged_weights_are_refused_before_load_returns(damaged: Path):
    with pytest.raises(BundleError, match=r"damaged.zip: weights.safetensors is damaged: its CRC-32") as caught:
        Trainer.load(damaged)
    assert caught.value.reason == "corrupt"


def test_no_answer_comes_from_damaged_weights_that_are_verified_later(damaged: Path, tmp_path: Path):
    trainer = Trainer.load(damaged, verify="lazy")
    uses: list[Callable[[], object]] = [
        lambda: trainer.predict(ROWS),
        lambda: trainer.predict_proba(ROWS),
        lambda: trainer.evaluate(ROWS, np.zeros(len(ROWS), int)),
        lambda: trainer.save(tmp_path / "again.zip"),
    ]

    for use in uses * 2:
        with pytest.raises(BundleError, match=r"weights.safetensors is damaged") as caught:
            use()
        assert caught.value.reason == "corrupt"
    assert trainer.classes_.tolist() == [0, 1]  # needs no weights
    assert not (tmp_path / "again.zip").exists()


def test_everything_but_the_weights_is_verified_at_once(saved: Path, tmp_path: Path):
    data = bytearray(saved.read_bytes())
    with zipfile.ZipFile(saved) as archive:
        info = archive.getinfo("selfcheck.safetensors")
        end = info.header_offset + 30 + len(info.filename) + len(info.extra) + info.file_size
    data[end - 1] ^= 1
    (tmp_path / "damaged.zip").write_bytes(data)

    with pytest.raises(BundleError, match=r"selfcheck.safetensors is damaged"):
        open_bundle(tmp_path / "damaged.zip", verify="lazy")


def test_weights_are_taken_as_they_are_where_nobody_wants_them_verified(damaged: Path, saved: Path):
    changed = Trainer.load(damaged, verify=False).predict_proba(ROWS)

    assert changed.shape == Trainer.load(saved).predict_proba(ROWS).shape


@pytest.mark.parametrize("verify", ["later", True, None])
def test_any_other_way_to_verify_is_refused(saved: Path, verify: object):
    with pytest.raises(SpecError, match=r"verify: got .*; expected 'eager', 'lazy' or False"):
        Trainer.load(saved, verify=verify)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_process_that_is_forked_in_between_verifies_for_itself():
    parent, may_end = os.getpid(), threading.Event()

    def check() -> Iterator[None]:
        if os.getpid() != parent:
            raise BundleError("seen by the child", reason="corrupt")
        may_end.wait()
        yield

    verification = Verification(check, done=lambda: None)
    verification.start()
    child = os.fork()
    if child == 0:
        try:
            verification.wait()
        except BundleError as error:
            os._exit(7 if "seen by the child" in str(error) else 1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    may_end.set()

    assert os.waitstatus_to_exitcode(status) == 7
    verification.wait()


def test_a_verification_that_was_given_up_is_made_up_for_by_who_waits():
    begun, pieces = threading.Event(), 0

    def check() -> Iterator[None]:
        nonlocal pieces
        while pieces < 10**6:
            begun.set()
            pieces += 1
            yield
        raise BundleError("all of it was looked at", reason="corrupt")

    verification = Verification(check, done=lambda: None)
    verification.start()
    begun.wait()
    verification.give_up()
    pieces = 10**6

    with pytest.raises(BundleError, match="all of it was looked at"):
        verification.wait()


@pytest.mark.slow
def test_a_process_may_end_while_weights_are_verified(saved: Path):
    # What the thread does is of the kind that takes the interpreter with it when it is ended in between.
    script = f"""
        import torch
        from gymtrain import Trainer
        from gymtrain.bundle import Verification

        def forever():
            while True:
                yield torch.zeros(1000).sum()

        Verification(forever, done=print).start()
        Trainer.load({str(saved)!r}, verify="lazy")
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, timeout=60)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


def test_a_file_is_read_from_two_places_at_once(saved: Path):
    content = saved.read_bytes()

    with Source(saved) as source:
        pieces = source.chunks(0, len(content))
        first = next(pieces)
        other = source.read(5, 10)

        assert b"".join([first, *pieces]) == content
        assert other == content[5:15]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_what_a_forked_process_writes_into_weights_from_memory_is_its_own(saved: Path):
    trainer = Trainer.load(saved.read_bytes())
    parameters = list(trainer._trained("test").learner.module.parameters())
    before = [parameter.detach().clone() for parameter in parameters]
    child = os.fork()
    if child == 0:
        for parameter in parameters:
            parameter.data.fill_(7.0)
        os._exit(0)
    os.waitpid(child, 0)

    assert all(torch.equal(*pair) for pair in zip(parameters, before, strict=True))


def test_a_bundle_that_is_refused_is_not_verified_any_further(saved: Path):
    with pytest.raises(ZeroDivisionError), open_bundle(saved, verify="lazy") as bundle:
        verification = bundle.verification
        raise ZeroDivisionError

    assert verification is not None
    assert bundle.verification is None
    assert not any(thread.name == "gymtrain-verification" for thread in threading.enumerate())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda trainer: pickle.loads(pickle.dumps(trainer))])
def test_a_trainer_whose_weights_are_being_verified_can_be_copied(saved: Path, copied: Callable[[Trainer], Trainer]):
    answers = Trainer.load(saved).predict_proba(ROWS)

    np.testing.assert_array_equal(copied(Trainer.load(saved, verify="lazy")).predict_proba(ROWS), answers)
