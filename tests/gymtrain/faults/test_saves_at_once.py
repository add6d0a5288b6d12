"""The same bundle written twice, and at once."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_forge import make_contents

from gymtrain import Trainer
from gymtrain.bundle import write

pytestmark = pytest.mark.usefixtures("one_thread")


def test_saving_twice_gives_the_same_bytes_but_for_the_time(tmp_path: Path, iris_trainer: Trainer):
    for name in ("one.zip", "two.zip"):
        iris_trainer.save(tmp_path / name)

    assert without_the_time(tmp_path / "one.zip") == without_the_time(tmp_path / "two.zip")


def test_a_bundle_that_was_loaded_is_saved_with_the_same_bytes_but_for_the_time(tmp_path: Path, iris_trainer: Trainer):
    iris_trainer.save(tmp_path / "one.zip")

    Trainer.load(tmp_path / "one.zip").save(tmp_path / "two.zip")

    assert without_the_time(tmp_path / "one.zip") == without_the_time(tmp_path / "two.zip")


def without_the_time(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Return all that comes before the manifest, and the manifest without the time."""
    content = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        return content[: archive.getinfo("manifest.json").header_offset], manifest | {"created": None}


def test_saves_at_once_over_one_bundle_leave_one_of_them(tmp_path: Path, iris_trainer: Trainer):
    path = tmp_path / "model.zip"
    iris_trainer.save(path)
    before = without_the_time(path)
    failures: list[BaseException] = []

    def repeat(what: Callable[[], object]) -> None:
        try:
            for _ in range(10):
                what()
        except BaseException as error:
            failures.append(error)

    savers = [threading.Thread(target=repeat, args=[lambda: iris_trainer.save(path)]) for _ in range(3)]
    for thread in savers:
        thread.start()
    while any(thread.is_alive() for thread in savers):
        assert without_the_time(path) == before
    for thread in savers:
        thread.join()

    assert failures == []
    assert os.listdir(tmp_path) == ["model.zip"]
    assert without_the_time(path) == before


SAVE_AGAIN = """
import sys
from bundle_forge import make_contents
from gymtrain.bundle import write

print("ready", flush=True)
sys.stdin.readline()
for _ in range(100):
    write(sys.argv[1], make_contents())
"""


@pytest.mark.slow
def test_processes_that_write_one_bundle_at_once_leave_one_of_them(tmp_path: Path):
    path = tmp_path / "model.zip"
    write(path, make_contents())
    expected = path.read_bytes()
    command = [sys.executable, "-c", SAVE_AGAIN, str(path)]
    tests = Path(__file__).parents[2]
    writers = [subprocess.Popen(command, stdin=-1, stdout=-1, text=True, cwd=tests) for _ in range(2)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()

    while any(writer.poll() is None for writer in writers):
        assert path.read_bytes() == expected

    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0, 0]
    assert os.listdir(tmp_path) == ["model.zip"]
    assert path.read_bytes() == expected
