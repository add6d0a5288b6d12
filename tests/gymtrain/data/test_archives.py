from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gymtrain.data import archives
from gymtrain.data.archives import extract
from gymtrain.errors import DataError

Members = dict[str, bytes]


def write_zip(path: Path, members: Members, *, modes: dict[str, int] = {}) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = modes.get(name, stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content)
    return path


def write_tar(path: Path, members: Members, *, types: dict[str, bytes] = {}) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.type = types.get(name, tarfile.REGTYPE)
            info.linkname = "/etc/passwd" if info.type in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            info.size = len(content) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(content))
    return path


WRITERS = pytest.mark.parametrize("write", [write_zip, write_tar], ids=["zip", "tar.gz"])


@WRITERS
def test_an_archive_is_extracted_whatever_it_is_called(write, tmp_path: Path) -> None:
    archive = write(tmp_path / "data.part", {"a/b/1.txt": b"one", "./a/2.txt": b"two", "3.txt": b""})

    extract(archive, tmp_path / "files")

    files = {path.relative_to(tmp_path / "files").as_posix(): path.read_bytes() for path in tmp_path.rglob("*.txt")}
    assert files == {"a/b/1.txt": b"one", "a/2.txt": b"two", "3.txt": b""}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.part", "files"]


@WRITERS
@pytest.mark.parametrize("name", ["../out.txt", "a/../../out.txt", "/out.txt", "a\\..\\out.txt", "C:/out.txt", "a//b"])
def test_a_member_that_lies_elsewhere_is_refused(write, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    archive = write(folder / "data", {"good.txt": b"good", name: b"bad"})

    with pytest.raises(DataError, match=r"data: the member '.*' lies elsewhere or has a name that is not taken"):
        extract(archive, folder / "files")

    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "data"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_a_link_in_a_zip_is_refused(kind: int, tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "data", {"link": b"/etc/passwd"}, modes={"link": kind | 0o777})

    with pytest.raises(DataError, match=r"data: is no zip or tar\.gz that can be read: 'link' is neither a file nor"):
        extract(archive, tmp_path / "files")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_link_in_a_tar_is_refused(kind: bytes, tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "data", {"link": b""}, types={"link": kind})

    with pytest.raises(DataError, match=r"'link' is neither a file nor a directory"):
        extract(archive, tmp_path / "files")


@WRITERS
def test_a_bomb_is_refused(write, tmp_path: Path) -> None:
    archive = write(tmp_path / "data", {"zeros": bytes(archives.ALLOWANCE + (8 << 20))})

    with pytest.raises(DataError, match=r"data: .*it unpacks to more than 20 times its size"):
        extract(archive, tmp_path / "files")

    assert not (tmp_path / "files").exists()


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_MEMBERS", 3)
    archive = write_zip(tmp_path / "data", {str(number): b"" for number in range(4)})

    with pytest.raises(DataError, match="holds more than 3 members"):
        extract(archive, tmp_path / "files")


def test_a_member_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "data", {"a": b"1", "./a": b"2"})

    with pytest.raises(DataError, match=r"holds '\./a' twice"):
        extract(archive, tmp_path / "files")


@pytest.mark.parametrize("name", ["a/b", "a/b/c", "a/"])
def test_a_member_in_a_file_is_refused(name: str, tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "data", {"a": b"1", name: b""})

    with pytest.raises(DataError, match=r"the member 'a/.*' lies in what is a file"):
        extract(archive, tmp_path / "files")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_whatever_is_changed_in_a_zip_it_is_extracted_or_refused(method: int, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "data", "w", method) as file:
        for number in range(3):
            file.writestr(f"folder/{number}.txt", b"cats and dogs " * 20)
    whole = np.frombuffer((tmp_path / "data").read_bytes(), np.uint8)
    refused = 0
    for _ in range(50):
        changed = whole.copy()
        changed[random.integers(0, len(whole), random.integers(1, 6))] = random.choice([0, 255, 47])
        (tmp_path / "data").write_bytes(changed.tobytes())
        try:
            extract(tmp_path / "data", tmp_path / "files")
        except DataError:
            refused += 1

    assert refused > 10


@WRITERS
def test_an_archive_that_is_damaged_leaves_what_was_there(write, tmp_path: Path) -> None:
    archive = write(tmp_path / "data", {f"{number}.txt": bytes(range(256)) * 40 for number in range(20)})
    extract(archive, tmp_path / "files")
    whole = archive.read_bytes()
    for damaged in (b"", b"no archive", whole[: len(whole) // 2], whole[:200] + bytes(200) + whole[400:]):
        archive.write_bytes(damaged)
        with pytest.raises(
            DataError, match=r"data: (is no zip or tar\.gz that can be read|the member '.*' is damaged)"
        ):
            extract(archive, tmp_path / "files")

    assert len(list((tmp_path / "files").iterdir())) == 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "files"]


def test_a_member_that_is_encrypted_is_refused(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "data", {"secret.txt": b"secret"})
    content = bytearray(archive.read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + place] |= 1
    archive.write_bytes(content)

    with pytest.raises(DataError, match="password required"):
        extract(archive, tmp_path / "files")


def test_what_a_killed_process_has_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "files.extracting").mkdir()
    (tmp_path / "files.extracting" / "half").touch()

    extract(write_zip(tmp_path / "data", {"a": b"1"}), tmp_path / "files")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "files"]
