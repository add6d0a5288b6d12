from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bundle_forge import make_contents, read_all

from gymtrain.bundle import atomic_write, from_numpy, write


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_file_appears_whole_when_the_block_ends(tmp_path: Path):
    target = tmp_path / "result.json"

    with atomic_write(target) as file:
        file.write(b"{}")
        assert not target.exists()
        assert all(name.startswith(f".gymtrain-{os.getpid()}-") for name in names(tmp_path))

    assert target.read_bytes() == b"{}"
    assert names(tmp_path) == ["result.json"]


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt("stop"), OSError("odd")])
def test_an_exception_leaves_the_old_file_and_nothing_else(error: BaseException, tmp_path: Path):
    target = tmp_path / "result.json"
    target.write_bytes(b"old")

    def write_half() -> None:
        with atomic_write(target) as file:
            file.write(b"new")
            raise error

    with pytest.raises(type(error), match=str(error)):
        write_half()

    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["result.json"]


def test_a_process_that_is_killed_leaves_the_old_file(tmp_path: Path):
    target = tmp_path / "result.json"
    target.write_bytes(b"old")
    script = (
        "import os, sys; from gymtrain.bundle import atomic_write\n"
        "with atomic_write(sys.argv[1]) as file:\n"
        "    file.write(bytes(1 << 20)); file.flush(); os.kill(os.getpid(), 9)"
    )

    done = subprocess.run([sys.executable, "-c", script, target], check=False)

    assert done.returncode == -9
    assert target.read_bytes() == b"old"


def test_a_directory_is_not_replaced(tmp_path: Path):
    with pytest.raises(IsADirectoryError, match=str(tmp_path)), atomic_write(tmp_path):
        pass


def test_a_directory_that_is_not_there_is_named(tmp_path: Path):
    with (
        pytest.raises(FileNotFoundError, match=f"create it first: '{tmp_path}/missing'"),
        atomic_write(tmp_path / "missing" / "result.json"),
    ):
        pass


def test_a_pipe_is_not_replaced(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(OSError, match="Not a regular file"), atomic_write(tmp_path / "pipe"):
        pass
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_permissions_that_open_gives(mask: int, tmp_path: Path):
    before = os.umask(mask)
    try:
        (tmp_path / "plain").touch()
        with atomic_write(tmp_path / "atomic"):
            pass
    finally:
        os.umask(before)

    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_old_file_keeps_its_permissions_and_a_symlink_its_target(tmp_path: Path):
    (tmp_path / "real").touch(mode=0o640)
    (tmp_path / "link").symlink_to("real")

    with atomic_write(tmp_path / "link") as file:
        file.write(b"new")

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o640


def test_the_longest_possible_name_can_be_written(tmp_path: Path):
    with atomic_write(tmp_path / ("x" * 255)):
        pass

    assert names(tmp_path) == ["x" * 255]


@pytest.fixture(params=["full disk", "file size limit"])
def small_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A directory in which no file can have more than 64 KiB, and the error that the system gives."""
    if request.param == "full disk":
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
        if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("mounting a small disk needs privileges")
        yield tmp_path, errno.ENOSPC
        subprocess.run(["umount", str(tmp_path)], check=True)
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, hard))  # Python ignores the signal that comes with it
    yield tmp_path, errno.EFBIG
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_bundle_and_nothing_else(small_place: tuple[Path, int]):
    directory, number = small_place
    path = directory / "model.zip"
    write(path, make_contents())
    large = from_numpy(np.random.default_rng(0).normal(size=20_000))

    with pytest.raises(OSError, match=r"model\.zip") as caught:
        write(path, make_contents(weights={"w": large}))

    assert caught.value.errno == number
    assert caught.value.filename == str(path)
    assert names(directory) == ["model.zip"]
    assert read_all(path)["readme"] == "# A model\n"
