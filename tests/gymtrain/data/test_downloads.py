from __future__ import annotations

import errno
import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from fault_injection import Interposer
from image_archives import pets
from servers import free_port
from web_server import WebServer, content, endless, make_certificate, redirect, silent

from gymtrain.data.downloads import Download, Patience, fetch, fetch_archive
from gymtrain.errors import DataError, DownloadError

HASTY = Patience(retries=2, pause=0.01, silence=5.0)
ONCE = Patience(retries=0, silence=5.0)
FILE = bytes(range(256)) * 16384  # 4 MiB
OTHER = FILE[::-1]


class Served:
    """A file as good servers have it: it is gone on with where the reader was, unless it has changed.

    Args:
        data: The file.
        breaks: After how many bytes the connection ends, of one request after the other; the ones after these end well.
        etag: Says which version of the file it is; None for a server that says nothing.
        ranges: Whether a part can be asked for.
    """

    def __init__(self, data: bytes, *breaks: int, etag: str | None = '"1"', ranges: bool = True) -> None:
        self.data, self.breaks, self.etag, self.ranges = data, list(breaks), etag, ranges
        self.asked: list[str | None] = []

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.asked.append(asked)
        fits = request.headers.get("If-Range") in (None, self.etag)
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked and fits and self.ranges else 0
        request.send_response(206 if begin else 200)
        if begin:
            request.send_header("Content-Range", f"bytes {begin}-{len(self.data) - 1}/{len(self.data)}")
        request.send_header("Content-Length", str(len(self.data) - begin))
        if self.etag is not None:
            request.send_header("ETag", self.etag)
        request.end_headers()
        end = self.breaks.pop(0) if self.breaks else len(self.data)
        request.wfile.write(self.data[begin : begin + end])


def answers(code: int, *, times: int, then: Callable[[Any], None], **headers: str) -> Callable[[Any], None]:
    """Answer with an error first, and well after so many times."""
    left = [times]

    def answer(request: BaseHTTPRequestHandler) -> None:
        if not left[0]:
            return then(request)
        left[0] -= 1
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", "0")
        request.end_headers()
        return None

    return answer


def trickle(request: BaseHTTPRequestHandler) -> None:
    """Send a byte now and then, for as long as somebody waits."""
    request.send_response(200)
    request.send_header("Content-Length", "100000")
    request.end_headers()
    server = request.server
    assert isinstance(server, WebServer)
    while not server.ending.wait(0.01):
        request.wfile.write(b"x")


@pytest.fixture
def server() -> Iterator[WebServer]:
    with WebServer().running() as running:
        yield running


@pytest.fixture(autouse=True)
def _publishers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GYMTRAIN_MIRROR", raising=False)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def published(server: WebServer, data: bytes = FILE, name: str = "data.bin") -> Download:
    return Download(name, (server.url,), sha256(data), len(data))


def left(folder: Path) -> set[str]:
    """What lies in a folder beside locks."""
    return {path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_a_file_is_downloaded_once_and_nothing_lies_beside_it(server: WebServer, tmp_path: Path) -> None:
    server.answers["/data.bin"] = Served(FILE)

    path = fetch(published(server), tmp_path)

    assert path.read_bytes() == FILE
    assert left(tmp_path) == {"data.bin"}
    assert fetch(published(server), tmp_path) == path
    assert server.asked == ["/data.bin"]


def test_a_download_that_broke_goes_on_where_it_was(server: WebServer, tmp_path: Path) -> None:
    served = server.answers["/data.bin"] = Served(FILE, 3_000_000, 500_000)

    path = fetch(published(server), tmp_path, patience=HASTY)

    assert path.read_bytes() == FILE
    assert served.asked == [None, "bytes=3000000-", "bytes=3500000-"]


def test_a_download_that_broke_is_gone_on_with_later(server: WebServer, tmp_path: Path) -> None:
    served = server.answers["/data.bin"] = Served(FILE, 1_000_000)

    with pytest.raises(
        DownloadError, match=r"/data\.bin: the connection ended after 1000000 of 4194304 bytes; given up"
    ):
        fetch(published(server), tmp_path, patience=ONCE)

    assert left(tmp_path) == {"data.bin.part", "data.bin.part.json"}
    assert fetch(published(server), tmp_path, patience=ONCE).read_bytes() == FILE
    assert served.asked == [None, "bytes=1000000-"]
    assert left(tmp_path) == {"data.bin"}


def test_a_file_that_has_changed_in_between_starts_anew(server: WebServer, tmp_path: Path) -> None:
    server.answers["/data.bin"] = Served(OTHER, 1_000_000, etag='"old"')
    with pytest.raises(DownloadError, match="the connection ended"):
        fetch(published(server), tmp_path, patience=ONCE)
    served = server.answers["/data.bin"] = Served(FILE, etag='"new"')

    assert fetch(published(server), tmp_path, patience=ONCE).read_bytes() == FILE
    assert served.asked == ["bytes=1000000-"]


def test_parts_of_two_files_are_not_taken_for_one(server: WebServer, tmp_path: Path) -> None:
    server.answers["/data.bin"] = Served(OTHER, 1_000_000, etag=None)
    with pytest.raises(DownloadError, match="the connection ended"):
        fetch(published(server), tmp_path, patience=ONCE)
    served = server.answers["/data.bin"] = Served(FILE, etag=None)

    assert fetch(published(server), tmp_path, patience=HASTY).read_bytes() == FILE
    assert served.asked == ["bytes=1000000-", None]


def test_a_server_that_sends_no_parts_is_taken_from_the_beginning(server: WebServer, tmp_path: Path) -> None:
    served = server.answers["/data.bin"] = Served(FILE, 1_000_000, ranges=False)

    assert fetch(published(server), tmp_path, patience=HASTY).read_bytes() == FILE
    assert served.asked == [None, "bytes=1000000-"]


def test_a_server_that_does_not_have_the_rest_is_asked_for_the_whole(server: WebServer, tmp_path: Path) -> None:
    server.answers["/data.bin"] = Served(FILE, 1_000_000)
    with pytest.raises(DownloadError, match="the connection ended"):
        fetch(published(server), tmp_path, patience=ONCE)
    server.answers["/data.bin"] = answers(416, times=1, then=Served(FILE))

    assert fetch(published(server), tmp_path, patience=HASTY).read_bytes() == FILE


def test_a_file_that_is_whole_and_was_not_checked_yet_is_not_downloaded_again(
    server: WebServer, tmp_path: Path
) -> None:
    server.answers["/data.bin"] = Served(FILE, 1_000_000)
    with pytest.raises(DownloadError, match="the connection ended"):
        fetch(published(server), tmp_path, patience=ONCE)
    part = next(tmp_path.rglob("*.part"))
    part.write_bytes(FILE)

    assert fetch(published(server), tmp_path, patience=ONCE).read_bytes() == FILE
    assert len(server.asked) == 1


def test_a_connection_that_always_breaks_is_given_up(server: WebServer, tmp_path: Path) -> None:
    server.answers["/data.bin"] = Served(FILE, *[1000] * 9)

    with pytest.raises(
        DownloadError, match=r"the connection ended after 3000 of 4194304 bytes; given up after 3 tries"
    ):
        fetch(published(server), tmp_path, patience=HASTY)


def test_a_file_that_is_cut_off_unseen_has_another_digest(server: WebServer, tmp_path: Path) -> None:
    server.answers["/data.bin"] = content(FILE[:-1], announced=None)

    with pytest.raises(
        DownloadError, match=rf"has the SHA-256 {sha256(FILE[:-1])}, and is removed; expected {sha256(FILE)}"
    ):
        fetch(published(server), tmp_path, patience=HASTY)

    assert left(tmp_path) == set()


def test_another_file_is_refused_and_removed(server: WebServer, tmp_path: Path) -> None:
    server.answers["/data.bin"] = Served(OTHER)

    with pytest.raises(DownloadError, match=r"/data\.bin: what came has the SHA-256 \w{64}, and is removed; expected"):
        fetch(published(server), tmp_path, patience=HASTY)

    assert left(tmp_path) == set()
    assert len(server.asked) == 1


def test_a_server_that_says_nothing_any_more_is_given_up(server: WebServer, tmp_path: Path) -> None:
    server.answers["/data.bin"] = silent

    with pytest.raises(DownloadError, match=r"the connection broke: it says nothing any more; given up after 1 try;"):
        fetch(published(server), tmp_path, patience=Patience(retries=0, silence=0.2))


def test_a_server_that_trickles_is_given_up(server: WebServer, tmp_path: Path) -> None:
    server.answers["/data.bin"] = trickle

    with pytest.raises(DownloadError, match=r"the server sends less than 1024 bytes/s"):
        fetch(published(server), tmp_path, patience=Patience(retries=0, silence=5.0, window=0.2))


def test_a_server_that_never_comes_to_the_file_is_given_up(server: WebServer, tmp_path: Path) -> None:
    def ramble(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.flush_headers()
        while not server.ending.wait(0.01):
            request.wfile.write(b"X-Word: word\r\n")

    server.answers["/data.bin"] = ramble

    with pytest.raises(DownloadError, match=r"the server cannot be reached: it says nothing any more; given up"):
        fetch(published(server), tmp_path, patience=Patience(retries=0, silence=5.0, window=0.2))


def test_a_file_is_fetched_by_https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = make_certificate(tmp_path / "certificate.pem")
    with WebServer(certificate).running() as secure:
        secure.answers["/data.bin"] = Served(FILE, 1_000_000)
        with pytest.raises(DownloadError, match=r"the certificate of the server is not trusted: .*self.signed"):
            fetch(published(secure), tmp_path / "data", patience=HASTY)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

        assert fetch(published(secure), tmp_path / "data", patience=HASTY).read_bytes() == FILE


def test_a_server_without_an_end_fills_no_disk(server: WebServer, tmp_path: Path) -> None:
    server.answers["/data.bin"] = endless

    with pytest.raises(DownloadError, match=r"sends more than 8388608 bytes, which cannot be what is asked for"):
        fetch(published(server), tmp_path, patience=HASTY)


def test_a_file_that_is_not_there_is_not_asked_for_again(server: WebServer, tmp_path: Path) -> None:
    with pytest.raises(
        DownloadError, match=r"/data\.bin: there is no such file.*; a copy elsewhere .* GYMTRAIN_MIRROR$"
    ):
        fetch(published(server), tmp_path, patience=HASTY)

    assert server.asked == ["/data.bin"]


@pytest.mark.parametrize(("code", "wait"), [(429, "0"), (500, "soon"), (503, "Wed, 21 Oct 2015 07:28:00 GMT")])
def test_a_server_that_is_busy_is_asked_again(server: WebServer, tmp_path: Path, code: int, wait: str) -> None:
    server.answers["/data.bin"] = answers(code, times=2, then=Served(FILE), Retry_After=wait)

    assert fetch(published(server), tmp_path, patience=HASTY).read_bytes() == FILE
    assert len(server.asked) == 3


def test_a_server_that_stays_broken_is_given_up(server: WebServer, tmp_path: Path) -> None:
    server.answers["/data.bin"] = answers(503, times=99, then=Served(FILE))

    with pytest.raises(DownloadError, match=r"the server answers 503 Service Unavailable; given up after 3 tries"):
        fetch(published(server), tmp_path, patience=HASTY)


def test_an_answer_that_no_retry_mends_is_an_error_at_once(server: WebServer, tmp_path: Path) -> None:
    server.answers["/data.bin"] = answers(401, times=1, then=Served(FILE))

    with pytest.raises(DownloadError, match=r"the server answers 401 Unauthorized"):
        fetch(published(server), tmp_path, patience=HASTY)


def test_a_server_that_is_gone_is_told_of(tmp_path: Path) -> None:
    place = f"http://127.0.0.1:{free_port()}"

    with pytest.raises(
        DownloadError, match=r"the server cannot be reached: Connection refused; given up after 3 tries"
    ):
        fetch(Download("data.bin", (place,), sha256(FILE), len(FILE)), tmp_path, patience=HASTY)


def test_the_next_place_is_asked_where_the_first_has_nothing(server: WebServer, tmp_path: Path) -> None:
    server.answers["/second/data.bin"] = Served(FILE)
    download = Download("data.bin", (f"{server.url}/first", f"{server.url}/second/"), sha256(FILE), len(FILE))

    assert fetch(download, tmp_path, patience=HASTY).read_bytes() == FILE
    assert server.asked == ["/first/data.bin", "/second/data.bin"]


def test_a_redirect_is_followed(server: WebServer, tmp_path: Path) -> None:
    server.answers |= {"/data.bin": redirect("/elsewhere"), "/elsewhere": Served(FILE)}

    assert fetch(published(server), tmp_path).read_bytes() == FILE


def test_what_is_there_can_be_downloaded_again(server: WebServer, tmp_path: Path) -> None:
    server.answers["/data.bin"] = Served(FILE)
    path = fetch(published(server), tmp_path)
    path.write_bytes(b"somebody was here")

    assert fetch(published(server), tmp_path, force=True).read_bytes() == FILE
    del server.answers["/data.bin"]
    with pytest.raises(DownloadError, match="there is no such file"):
        fetch(published(server), tmp_path, force=True)
    assert path.read_bytes() == FILE


def test_a_full_disk_is_told_of_with_what_is_kept(server: WebServer, tmp_path: Path) -> None:
    server.answers["/data.bin"] = Served(FILE)
    written = [0]

    def fill(number: int, operation: Any) -> None:
        written[0] += len(operation.data)
        if operation.kind == "write" and written[0] > 2_000_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with (
        Interposer(lambda path: path.endswith(".part"), fill),
        pytest.raises(OSError, match=r"kept, and the next") as raised,
    ):
        fetch(published(server), tmp_path, patience=HASTY)

    assert raised.value.errno == errno.ENOSPC
    assert str(raised.value.filename).endswith("data.bin.part")
    assert fetch(published(server), tmp_path, patience=HASTY).read_bytes() == FILE


def test_a_file_that_the_disk_has_no_room_for_is_not_begun(server: WebServer, tmp_path: Path) -> None:
    server.answers["/data.bin"] = content(b"", announced=10**17)

    with pytest.raises(OSError, match=r"the download needs \d+ MiB and \d+ MiB are free") as raised:
        fetch(published(server), tmp_path, patience=HASTY)

    assert raised.value.errno == errno.ENOSPC


FETCHER = """
import sys
from pathlib import Path
from gymtrain.data.downloads import Download, fetch
Path(sys.argv[4]).touch()
print(fetch(Download("data.bin", (sys.argv[1],), sys.argv[2], 4194304), Path(sys.argv[3])))
"""


def start_fetcher(server: WebServer, folder: Path, ready: Path) -> subprocess.Popen[str]:
    arguments = [server.url, sha256(FILE), str(folder), str(ready)]
    return subprocess.Popen([sys.executable, "-c", FETCHER, *arguments], stdout=subprocess.PIPE, text=True)


def test_of_two_processes_one_downloads_and_both_have_it(server: WebServer, tmp_path: Path) -> None:
    ready = [tmp_path / "first", tmp_path / "second"]

    def when_both_have_begun(request: BaseHTTPRequestHandler) -> None:
        while not all(path.exists() for path in ready) and not server.ending.wait(0.01):
            pass
        Served(FILE)(request)

    server.answers["/data.bin"] = when_both_have_begun
    children = [start_fetcher(server, tmp_path / "data", path) for path in ready]
    outputs = {child.communicate(timeout=120)[0] for child in children}

    assert [child.returncode for child in children] == [0, 0]
    assert len(outputs) == 1
    assert Path(outputs.pop().strip()).read_bytes() == FILE
    assert server.asked == ["/data.bin"]


def test_what_a_killed_process_has_downloaded_is_gone_on_with(server: WebServer, tmp_path: Path) -> None:
    def half(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(FILE)))
        request.send_header("ETag", '"1"')
        request.end_headers()
        request.wfile.write(FILE[:2_000_000])
        request.wfile.flush()
        server.ending.wait(60)

    server.answers["/data.bin"] = half
    child = start_fetcher(server, tmp_path / "data", tmp_path / "ready")
    while not any(path.stat().st_size > 1_000_000 for path in tmp_path.rglob("*.part")):
        assert child.poll() is None
        threading.Event().wait(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=60)
    served = server.answers["/data.bin"] = Served(FILE)

    assert fetch(published(server), tmp_path / "data", patience=HASTY).read_bytes() == FILE
    assert served.asked[0] is not None


def test_a_mirror_is_asked_instead_of_the_publisher(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers |= {
        "/mirror/data.bin": Served(OTHER),
        "/mirror/data.bin.sha256": content(f"{sha256(OTHER)}  data.bin\n".encode()),
    }
    monkeypatch.setenv("GYMTRAIN_MIRROR", f"{server.url}/mirror/")

    path = fetch(published(server), tmp_path, patience=HASTY)

    assert path.read_bytes() == OTHER
    assert sorted(server.asked) == ["/mirror/data.bin", "/mirror/data.bin.sha256"]
    assert fetch(published(server), tmp_path, patience=HASTY) == path
    assert len(server.asked) == 2  # it is there, and the mirror may be gone


def test_what_came_from_a_mirror_is_not_taken_for_the_publishers(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers |= {
        "/data.bin": Served(FILE),
        "/m/data.bin": Served(OTHER),
        "/m/data.bin.sha256": content(sha256(OTHER).encode()),
    }
    monkeypatch.setenv("GYMTRAIN_MIRROR", f"{server.url}/m")
    fetch(published(server), tmp_path, patience=HASTY)
    monkeypatch.delenv("GYMTRAIN_MIRROR")

    assert fetch(published(server), tmp_path, patience=HASTY).read_bytes() == FILE


def test_a_mirror_that_states_no_digest_has_to_have_the_publishers_file(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["/m/data.bin"] = Served(OTHER)
    monkeypatch.setenv("GYMTRAIN_MIRROR", f"{server.url}/m")

    with pytest.raises(DownloadError, match=rf"what came has the SHA-256 {sha256(OTHER)}"):
        fetch(published(server), tmp_path, patience=HASTY)
    server.answers["/m/data.bin"] = Served(FILE)
    assert fetch(published(server), tmp_path, patience=HASTY).read_bytes() == FILE


def test_a_mirror_that_trickles_its_digest_is_given_up(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["/data.bin.sha256"] = trickle
    monkeypatch.setenv("GYMTRAIN_MIRROR", server.url)

    with pytest.raises(DownloadError, match=r"data\.bin\.sha256: the server sends less than 1024 bytes/s"):
        fetch(published(server), tmp_path, patience=Patience(retries=0, silence=5.0, window=0.2))


def test_a_mirror_is_asked_again_for_what_is_gone(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GYMTRAIN_MIRROR", server.url)
    for data in (FILE, OTHER):
        server.answers |= {"/data.bin": Served(data), "/data.bin.sha256": content(sha256(data).encode())}
        path = fetch(published(server), tmp_path, patience=HASTY)
        assert path.read_bytes() == data
        path.unlink()


def test_a_digest_that_is_none_is_refused(server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers["/data.bin.sha256"] = content(b"<html>sign in first</html>")
    monkeypatch.setenv("GYMTRAIN_MIRROR", server.url)

    with pytest.raises(DownloadError, match=r"data\.bin\.sha256: got '<html>sign in first</html>'; expected a line of"):
        fetch(published(server), tmp_path, patience=HASTY)


def test_a_directory_can_be_the_mirror(server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = tmp_path / "a mirror"
    mirror.mkdir()
    monkeypatch.setenv("GYMTRAIN_MIRROR", mirror.as_uri())

    with pytest.raises(DownloadError, match=r"a%20mirror/data\.bin: there is no such file, or it may not be read$"):
        fetch(published(server), tmp_path / "data", patience=HASTY)
    (mirror / "data.bin").write_bytes(FILE)
    assert fetch(published(server), tmp_path / "data", patience=HASTY).read_bytes() == FILE
    assert server.asked == []


@pytest.mark.parametrize("mirror", ["/srv/data", "ftp://example.org", "https://me:secret@example.org", "https://a?b=c"])
def test_what_is_no_mirror_is_refused(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror: str
) -> None:
    monkeypatch.setenv("GYMTRAIN_MIRROR", mirror)

    with pytest.raises(
        DataError, match=r"^GYMTRAIN_MIRROR: got an address of '[\w ]+'; expected one such as"
    ) as raised:
        fetch(published(server), tmp_path)

    assert "secret" not in str(raised.value)


def test_an_archive_is_downloaded_extracted_and_not_kept(server: WebServer, tmp_path: Path) -> None:
    archive = pets(each=3)
    server.answers["/pets.zip"] = Served(archive, len(archive) // 2)

    folder = fetch_archive(published(server, archive, "pets.zip"), tmp_path, patience=HASTY)

    assert len(list((folder / "PetImages" / "Cat").glob("*.jpg"))) == 4
    assert not list(tmp_path.rglob("*.zip*[!k]"))
    assert fetch_archive(published(server, archive, "pets.zip"), tmp_path) == folder
    assert fetch_archive(published(server, archive, "pets.zip"), tmp_path, force=True) == folder
    assert len(server.asked) == 3


def test_a_bar_is_shown_on_a_terminal_alone(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    server.answers["/data.bin"] = Served(FILE)
    fetch(published(server), tmp_path)
    assert capsys.readouterr().err == ""
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)

    archive = pets(each=1)
    server.answers["/pets.zip"] = Served(archive)
    fetch(published(server), tmp_path, force=True)
    fetch_archive(published(server, archive, "pets.zip"), tmp_path)

    assert "data.bin" in shown.getvalue()
    assert "extracting to" in shown.getvalue()
