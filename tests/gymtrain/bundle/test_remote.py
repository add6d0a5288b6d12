from __future__ import annotations

import hashlib
import http.client
import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bundle_forge import make_contents, read_all
from web_server import WebServer, content, endless, make_certificate, redirect, silent

from gymtrain.bundle import check_target, inspect, open_bundle, remote, web, write
from gymtrain.errors import BundleError, MissingDependencyError, SaveError

pytestmark = pytest.mark.usefixtures("downloads")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate") / "own.pem")


@pytest.fixture
def server() -> Iterator[WebServer]:
    with WebServer().running() as running:
        yield running


@pytest.fixture
def safe_server(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """One that speaks https, with a certificate that this process takes."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with WebServer(certificate).running() as running:
        yield running


@pytest.fixture
def expected(good: bytes, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "good.zip").write_bytes(good)
    return read_all(tmp_path / "good.zip")


def refusal(url: str, **options: Any) -> BundleError:
    """Return the error with which both readers refuse an address."""
    with pytest.raises(BundleError) as caught:
        inspect(url, **options)
    with pytest.raises(BundleError, match=re.escape(str(caught.value))):
        open_bundle(url, **options)
    return caught.value


def test_a_bundle_is_read_from_a_web_server(safe_server: WebServer, good: bytes, expected: dict[str, Any]):
    safe_server.answers = {"/good.zip?token=1": content(good), "/unannounced.zip": content(good, announced=None)}

    assert read_all(f"{safe_server.url}/good.zip?token=1") == expected
    assert read_all(f"{safe_server.url}/unannounced.zip") == expected
    assert open_bundle(f"{safe_server.url}/good.zip?token=1", sha256=hashlib.sha256(good).hexdigest())


def test_a_digest_holds_whatever_a_server_sends(safe_server: WebServer, good: bytes):
    safe_server.answers = {"/good.zip": content(good)}

    refused = refusal(f"{safe_server.url}/good.zip", sha256="0" * 64)

    assert refused.reason == "digest"


def test_a_server_that_nobody_vouches_for_is_refused(certificate: Path, good: bytes):
    with WebServer(certificate).running() as server:
        server.answers = {"/good.zip": content(good)}

        refused = refusal(f"{server.url}/good.zip")

        assert (refused.reason, server.asked) == ("not_fetched", [])
        assert "self-signed certificate" in str(refused) or "CERTIFICATE_VERIFY_FAILED" in str(refused)


def test_http_is_read_from_this_machine_only(server: WebServer, good: bytes, expected: dict[str, Any]):
    server.answers = {"/good.zip": content(good)}

    assert read_all(f"{server.url}/good.zip") == expected
    assert read_all(f"http://localhost:{server.server_port}/good.zip") == expected
    for host in ("example.org", "127.0.0.1.example.org", "0.0.0.0", "2130706433", "[::2]"):
        assert refusal(f"http://{host}:{server.server_port}/good.zip").reason == "not_a_file"


def test_http_goes_through_no_other_machine(
    server: WebServer, good: bytes, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    server.answers = {"/good.zip": content(good)}
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)

    assert read_all(f"{server.url}/good.zip") == expected


def test_a_bundle_of_a_web_server_is_inspected_where_nothing_else_is_installed(server: WebServer, good: bytes):
    server.answers = {"/good.zip": content(good)}
    code = """
import sys
sys.modules.update(dict.fromkeys(["torch", "fsspec", "mlflow", "sklearn", "yaml", "pydantic"]))
import gymtrain
print(gymtrain.inspect(sys.argv[1])["readme"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, f"{server.url}/good.zip"], capture_output=True, text=True, check=True
    )

    assert done.stdout == "# A model\n\n"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://me:secret@127.0.0.1/x.zip", r"^'https://\*\*\*@127.0.0.1/x.zip' has a password in it"),
        ("https://secret@127.0.0.1/x.zip", r"^'https://\*\*\*@127.0.0.1/x.zip' has a password in it"),
        ("http://example.org/x.zip#sig=secret?a", r"^'http://example.org/x.zip#\*\*\*': anybody on the way"),
        ("abfs://models:secret@account/x.zip", r"^'abfs://\*\*\*@account/x.zip' has a password in it"),
        ("https://127.0.0.1/my model.zip?sig=secret", r"^'https://127.0.0.1/my model.zip\?\*\*\*' has a space"),
        ("https://127.0.0.1/x.zip?sig=a\tsecret", "has a space or a control character in it; write it in its percent"),
        ("ftp://127.0.0.1/x.zip#sig=secret", r"^'ftp://127.0.0.1/x.zip#\*\*\*' is not the path of a file"),
        ("https://token@127.0.0.1/x.zip", "has a password in it"),
        ("s3://key:secret@models/x.zip", r"^'s3://\*\*\*@models/x.zip' has a password in it"),
        ("https:///x.zip", "names no machine"),
        ("https://127.0.0.1:99999/x.zip", "is no address; expected one like https://HOST:PORT/PATH"),
        ("https://[::1/x.zip", "is no address; expected one like"),
        ("https://me:secret\uff0f@127.0.0.1/x.zip", "is no address; expected one like"),
        ("s3://", "names no file; expected s3://BUCKET/PATH"),
        ("memory:///", "names no file; expected memory://PATH"),
        ("file://elsewhere/x.zip", "names another machine"),
        ("s3://models/x.zip::memory://x", "is not the path of a file"),
        ("HTTP://example.org/x.zip?secret", r"^'HTTP://example.org/x.zip\?\*\*\*': anybody on the way"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused_without_its_secrets(url: str, message: str):
    refused = refusal(url)

    assert (refused.reason, "secret" in str(refused)) == ("not_a_file", False)
    assert re.search(message, str(refused))


def test_a_password_in_a_query_is_shown_nowhere(server: WebServer):
    refused = refusal(f"{server.url}/missing.zip?signature=secret")

    assert (refused.reason, str(refused)) == (
        "not_fetched",
        f"{server.url}/missing.zip?***: the server answers 404 Not Found",
    )


@pytest.mark.parametrize(
    ("sent", "reason", "message"),
    [
        (content(b""), "not_a_bundle", "is not a zip file"),
        (content(b"<html>Please log in</html>"), "not_a_bundle", "is not a zip file"),
        (content(b"PK\3\4" * 100, announced=100_000), "not_fetched", "the connection ended after 400 of 100000 bytes"),
        (content(b"PK\3\4", announced=1 << 40), "too_large", f"{1 << 40} bytes, and {1 << 20} are allowed"),
        (endless, "too_large", f"more than the {1 << 20} bytes that are allowed"),
        (silent, "not_fetched", "cannot be read: TimeoutError"),
        (lambda request: request.wfile.write(b"hello\x1b[2J\n"), "not_fetched", "cannot be read: BadStatusLine: hello"),
        (lambda request: request.wfile.write(b"HTTP/1.0 206 Some\r\n\r\nPK"), "not_fetched", "answers with '206 Some'"),
        (
            lambda request: request.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Encoding: gzip\r\n\r\nPK"),
            "not_fetched",
            "answers with 'Content-Encoding gzip', which is no whole file",
        ),
        (lambda request: None, "not_fetched", "cannot be read: RemoteDisconnected"),
        (lambda request: request.send_error(503), "not_fetched", "the server answers 503 Service Unavailable"),
    ],
    ids=["nothing", "a page", "cut", "vast", "endless", "silent", "no http", "a part", "packed", "hung up", "ill"],
)
def test_what_a_server_does_wrong_is_told(
    sent: Any, reason: str, message: str, server: WebServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(remote, "MAX_FILE_BYTES", 1 << 20)
    monkeypatch.setattr(web, "_SECONDS", 0.3 if sent is silent else 30.0)
    server.answers = {"/x.zip": sent}

    refused = refusal(f"{server.url}/x.zip")

    assert (refused.reason, str(refused).startswith(f"{server.url}/x.zip")) == (reason, True)
    assert message in str(refused)
    assert str(refused).isprintable()


def test_a_server_that_redirects_in_a_circle_is_told_from_one_that_redirects_elsewhere(server: WebServer):
    server.answers = {"/x.zip": redirect("/y.zip"), "/y.zip": redirect("/x.zip")}

    message = f"{server.url}/x.zip: the server redirects in a circle, or more than 5 times"
    assert str(refusal(f"{server.url}/x.zip")) == message


def test_a_server_that_sends_a_byte_now_and_then_is_given_up(server: WebServer, monkeypatch: pytest.MonkeyPatch):
    def trickling(request: Any) -> None:
        content(b"PK\3\4", announced=1000)(request)
        while not server.ending.wait(0.02):
            request.wfile.write(b"x")

    monkeypatch.setattr(remote, "_PATIENCE", 0.2)
    server.answers = {"/x.zip": trickling}

    refused = refusal(f"{server.url}/x.zip")

    told = f"{server.url}/x.zip: gave up, because less than 1000 bytes a second came; try again"
    assert (refused.reason, str(refused)) == ("not_fetched", told)


@pytest.mark.parametrize("is_safe", [False, True])
def test_a_server_whose_head_never_ends_is_given_up(
    is_safe: bool, server: WebServer, safe_server: WebServer, monkeypatch: pytest.MonkeyPatch
):
    chosen = safe_server if is_safe else server

    def dripping(request: Any) -> None:
        request.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
        while not chosen.ending.wait(0.05):
            request.wfile.write(b"x")

    monkeypatch.setattr(web, "_SECONDS", 0.2)
    chosen.answers = {"/x.zip": dripping}

    refused = refusal(f"{chosen.url}/x.zip")

    assert (refused.reason, "cannot be read" in str(refused)) == ("not_fetched", True)


def test_a_connection_that_ends_within_a_chunk_is_told(server: WebServer):
    def cut(request: Any) -> None:
        request.protocol_version = "HTTP/1.1"
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.write(b"400\r\nPK")
        request.close_connection = True

    server.answers = {"/x.zip": cut}

    assert str(refusal(f"{server.url}/x.zip")).startswith(f"{server.url}/x.zip: cannot be read: IncompleteRead")


def test_a_redirect_is_followed_to_where_the_caller_could_have_gone(
    server: WebServer, safe_server: WebServer, good: bytes, expected: dict[str, Any]
):
    safe_server.answers = {"/good.zip": content(good), "/moved.zip": redirect("/good.zip")}
    server.answers = {"/old.zip": redirect(f"{safe_server.url}/moved.zip")}

    assert read_all(f"{server.url}/old.zip") == expected


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("http://example.org/x.zip", "anybody on the way could change what http brings"),
        ("{http}/good.zip", "is less safe than https"),
        ("file:///etc/passwd", "redirects to 'file:///etc/passwd', which is not opened"),
        ("ftp://127.0.0.1/x.zip", "is not the path of a file, nor an address that is opened"),
        ("https://me:secret@127.0.0.1/x.zip", "has a password in it"),
        ("{https}/x.zip", "redirects in a circle"),
    ],
)
def test_a_redirect_to_anywhere_else_is_refused(
    place: str, message: str, server: WebServer, safe_server: WebServer, good: bytes
):
    server.answers = {"/good.zip": content(good)}
    safe_server.answers = {"/x.zip": redirect(place.format(http=server.url, https=safe_server.url))}

    refused = refusal(f"{safe_server.url}/x.zip")

    assert (refused.reason, server.asked, "secret" in str(refused)) == ("not_fetched", [], False)
    assert re.search(message, str(refused))


def test_a_full_disk_is_told_as_such(server: WebServer, monkeypatch: pytest.MonkeyPatch):
    server.answers = {"/x.zip": content(b"PK\3\4")}
    full = lambda **options: open("/dev/full", "w+b", buffering=0)  # noqa: E731, SIM115
    monkeypatch.setattr(tempfile, "TemporaryFile", full)

    with pytest.raises(OSError, match="No space left on device"):
        open_bundle(f"{server.url}/x.zip")


def test_a_file_object_that_is_closed_takes_no_bundle():
    closed = io.BytesIO()
    closed.close()

    with pytest.raises(SaveError, match=r"got <BytesIO>, which is closed; expected a path, an address"):
        write(closed, make_contents())


@pytest.mark.parametrize("place", ["runs:/8f3c", "models:/net/1"])
def test_a_place_in_mlflow_is_written_to_by_trackers_alone(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs:").mkdir()

    for refuse in (check_target, lambda place: write(place, make_contents())):
        with pytest.raises(SaveError, match=rf"'{place}' is a place in MLflow, where the tracker of a training puts"):
            refuse(place)
    assert list((tmp_path / "runs:").iterdir()) == []


def test_a_full_disk_is_named_where_a_file_object_is_on_it():
    with (
        open("/dev/full", "wb", buffering=0) as full,
        pytest.raises(OSError, match="No space left on device") as caught,
    ):
        write(full, make_contents())

    assert caught.value.filename == "/dev/full"
    assert re.search(r"about \d[\d,]+ bytes are needed", str(caught.value))


def test_a_file_address_is_a_path(good: bytes, tmp_path: Path, expected: dict[str, Any]):
    (tmp_path / "two layers.zip").write_bytes(good)
    os.mkfifo(tmp_path / "pipe")
    address = tmp_path.as_uri()

    assert read_all(f"{address}/two%20layers.zip") == expected
    assert refusal(f"{address}/pipe").reason == "not_a_file"
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "missing.zip"))):
        open_bundle(f"{address}/missing.zip")
    write(f"{address}/new.zip", make_contents())
    assert open_bundle(tmp_path / "new.zip").readme == "# A model\n"


def test_a_bundle_goes_to_a_store_and_comes_back(tmp_path: Path):
    write(tmp_path / "x.zip", make_contents())
    write("memory://models/x.zip", make_contents())

    assert read_all("memory://models/x.zip") == read_all(tmp_path / "x.zip")
    missing = refusal("memory://models/missing.zip")
    assert (missing.reason, str(missing)) == (
        "not_fetched",
        "memory://models/missing.zip: cannot be read: FileNotFoundError: /models/missing.zip",
    )


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://127.0.0.1/x.zip", "nothing is written to web servers; name a path, or a store"),
        ("memory://models/", "is a directory; name a file in it"),
        ("ftp://127.0.0.1/x.zip", "nor an address that is opened"),
        ("memory://models", "cannot be written: IsADirectoryError"),
    ],
)
def test_an_address_that_cannot_be_written_to_is_refused(url: str, message: str):
    write("memory://models/x.zip", make_contents())

    with pytest.raises(SaveError, match=message):
        write(url, make_contents())


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch):
    for url, package, extra in [("gs://models/x.zip", "gcsfs", "gs"), ("abfs://models/x.zip", "adlfs", "az")]:
        monkeypatch.setitem(sys.modules, package, None)
        message = (
            rf"^{url}: the package '{package}' is not installed; install it with: pip install 'gymtrain\[{extra}\]'"
        )

        for act in (lambda url=url: open_bundle(url), lambda url=url: write(url, make_contents())):
            with pytest.raises(MissingDependencyError, match=message):
                act()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket in a server that speaks S3, which the environment names, as it would name one of one's own."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_CONFIG_FILE", str(tmp_path_factory.mktemp("aws") / "none"))
        connection = http.client.HTTPConnection(host, port)
        connection.request("PUT", "/models")
        assert connection.getresponse().read() is not None
        connection.close()
        yield "s3://models"
    server.stop()


def test_a_bundle_goes_to_s3_and_comes_back(bucket: str, tmp_path: Path):
    write(tmp_path / "x.zip", make_contents())
    for _ in range(2):  # a second time over the first
        write(f"{bucket}/some/x.zip", make_contents())

    assert read_all(f"{bucket}/some/x.zip") == read_all(tmp_path / "x.zip")
    assert open_bundle(f"{bucket}/some/x.zip", sha256=hashlib.sha256((tmp_path / "x.zip").read_bytes()).hexdigest())


def test_what_another_process_has_written_to_s3_since_is_read(bucket: str, tmp_path: Path):
    import s3fs

    write(f"{bucket}/some/x.zip", make_contents())
    listed = s3fs.S3FileSystem().ls(f"{bucket}/some", detail=True)
    write(tmp_path / "x.zip", make_contents(readme="# Another\n" * 99))
    another = s3fs.S3FileSystem(skip_instance_cache=True)
    another.pipe_file(f"{bucket}/some/x.zip", (tmp_path / "x.zip").read_bytes())

    assert listed[0]["size"] != (tmp_path / "x.zip").stat().st_size
    assert open_bundle(f"{bucket}/some/x.zip").readme == "# Another\n" * 99


def test_what_s3_refuses_is_told(bucket: str):
    assert refusal(f"{bucket}/missing.zip").reason == "not_fetched"
    with pytest.raises(SaveError, match=r"^s3://nowhere/x\.zip: cannot be written: .*bucket does not exist"):
        write("s3://nowhere/x.zip", make_contents())
