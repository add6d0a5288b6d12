from __future__ import annotations

import hashlib
import os
import re
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from bundle_corpus import CASES, Case
from bundle_forge import Forge, read_all

from gymtrain.bundle import inspect, open_bundle
from gymtrain.bundle.format import MAX_FILE_BYTES
from gymtrain.errors import BundleError


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_hostile_file_is_refused_with_its_reason(case: Case, good: bytes, tmp_path: Path):
    path = tmp_path / "hostile.zip"
    path.write_bytes(case.build(good))

    with pytest.raises(BundleError, match=rf"(?s)^{re.escape(str(path))}.*({case.message})") as caught:
        read_all(path)
    assert caught.value.reason == case.reason
    assert list(tmp_path.iterdir()) == [path]


def test_the_forge_itself_makes_good_bundles(forge: Forge, good: bytes, tmp_path: Path):
    (tmp_path / "good.zip").write_bytes(good)
    (tmp_path / "forged.zip").write_bytes(forge.seal().pack())

    forged = read_all(tmp_path / "forged.zip")

    assert forged == read_all(tmp_path / "good.zip") | {"manifest": forged["manifest"]}


def test_another_file_than_the_one_whose_digest_is_known_is_refused(good: bytes, tmp_path: Path):
    path = tmp_path / "good.zip"
    path.write_bytes(good)

    assert open_bundle(path, sha256=hashlib.sha256(good).hexdigest()).readme
    with pytest.raises(BundleError, match=r"has SHA-256 [0-9a-f]{64}, expected 0000") as caught:
        open_bundle(path, sha256="0" * 64)
    assert caught.value.reason == "digest"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with things in it that are no files."""
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link_to_device").symlink_to("/dev/zero")
    with (tmp_path / "vast").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "reason", "message"),
    [
        ("directory", "not_a_file", "is a directory"),
        ("pipe", "not_a_file", "is a pipe or a device"),
        ("link_to_device", "not_a_file", "is a pipe or a device"),
        ("vast", "too_large", "more than the 274877906944"),
    ],
)
def test_what_is_no_file_is_refused_without_waiting(name: str, reason: str, message: str, place: Path):
    for read in (open_bundle, inspect):
        with pytest.raises(BundleError, match=message) as caught:
            read(place / name)
        assert caught.value.reason == reason


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket may have 100 characters only
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")

        with pytest.raises(BundleError, match="is a socket or a device"):
            open_bundle("socket")


@pytest.mark.parametrize(
    "url",
    ["ftp://127.0.0.1:1/x.zip", "zip://x::memory://x.zip", "simplecache::https://127.0.0.1/x.zip", "jar://a/b", "a\0b"],
)
def test_an_address_of_another_kind_is_refused_before_anything_is_opened(url: str):
    with pytest.raises(BundleError, match="is not the path of a file") as caught:
        open_bundle(url)
    assert caught.value.reason == "not_a_file"


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    (tmp_path / "dangling").symlink_to("nowhere")

    for name in ("missing.zip", "dangling"):
        with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / name))):
            open_bundle(tmp_path / name)


def test_a_symlink_to_a_bundle_is_followed(good: bytes, tmp_path: Path):
    (tmp_path / "good.zip").write_bytes(good)
    (tmp_path / "latest.zip").symlink_to("good.zip")

    assert open_bundle(tmp_path / "latest.zip").readme == "# A model\n"


AUDIT = textwrap.dedent(
    """
    import os, resource, sys
    from gymtrain.bundle import open_bundle, inspect
    from gymtrain.errors import BundleError

    good, directory = sys.argv[1:]
    open_bundle(good)
    paths = [os.path.join(directory, name) for name in sorted(os.listdir(directory))]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    events, watching = set(), False

    def watch(event, arguments):
        if watching and not (event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            events.add(event)

    sys.addaudithook(watch)
    watching = True
    refused = 0
    for path in paths:
        try:
            bundle = open_bundle(path)
            bundle.weights(), bundle.selfcheck(), bundle.preprocessors()
        except BundleError:
            refused += 1
    watching = False
    print(refused, sorted(events), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
)


def test_no_hostile_file_makes_the_reader_import_run_write_connect_or_grow(good: bytes, tmp_path: Path):
    (tmp_path / "good.zip").write_bytes(good)
    (tmp_path / "hostile").mkdir()
    for index, case in enumerate(CASES):
        (tmp_path / "hostile" / f"{index:03d}.zip").write_bytes(case.build(good))

    done = subprocess.run(
        [sys.executable, "-c", AUDIT, tmp_path / "good.zip", tmp_path / "hostile"],
        capture_output=True,
        text=True,
        check=True,
    )

    refused, events, grown = re.fullmatch(r"(\d+) (\[.*\]) (\d+)\n", done.stdout).groups()
    assert int(refused) == len(CASES)
    assert events == "['mmap.__new__']"
    assert int(grown) < 64 << 10  # KiB
