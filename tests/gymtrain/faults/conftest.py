from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty_training import make_trainer, outcome, wait_for_checkpoints

EPOCHS = 4


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """The outcome of a training of four epochs to which nothing happened."""
    trainer = make_trainer(tmp_path_factory.mktemp("whole"), epochs=EPOCHS, keep_last=None)
    trainer.train()
    return outcome(trainer)


@pytest.fixture(scope="session")
def interrupted_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("interrupted")
    make_trainer(root, epochs=3).train()
    wait_for_checkpoints(root, 2)
    return root


@pytest.fixture
def interrupted(interrupted_once: Path, tmp_path: Path) -> Path:
    """The root of a training that has one epoch of four to go; it has two checkpoints."""
    return Path(shutil.copytree(interrupted_once, tmp_path / "interrupted"))


def mounted(directory: Path, options: str) -> bool:
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a disk of its own with the options given, such as `"size=64k"`; skips where that is not allowed."""
    places: list[Path] = []

    def mount(options: str) -> Path:
        place = tmp_path / f"disk {len(places)}"
        place.mkdir()
        if not mounted(place, options):
            pytest.skip("mounting a disk needs privileges")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A directory in which nothing can be created, not even by root where a disk can be mounted."""
    place = tmp_path / "read-only"
    place.mkdir()
    is_mounted = mounted(place, "ro")
    if not is_mounted and os.geteuid() == 0:
        pytest.skip("root may write everywhere, and mounting a disk needs privileges")
    if not is_mounted:
        place.chmod(0o555)
    yield place
    if is_mounted:
        subprocess.run(["umount", str(place)], check=True)
    else:
        place.chmod(0o755)
