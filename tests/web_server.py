"""A web server on the loopback interface that behaves in every way that one has to be ready for."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Answer = Callable[[BaseHTTPRequestHandler], None]


class WebServer(ThreadingHTTPServer):
    """Answers each path with what `answers` has for it; what it does not have is not found.

    Args:
        certificate: The file of a certificate and its key, for https; None for http.
    """

    daemon_threads = True

    def __init__(self, certificate: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.ending = threading.Event()  # for answers that wait
        scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self.server_port}"

    @contextlib.contextmanager
    def running(self) -> Iterator[WebServer]:
        """Answer until the block ends."""
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            self.ending.set()
            self.shutdown()
            thread.join()
            self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: readers that go away are what is tested."""


class _Handler(BaseHTTPRequestHandler):
    server: WebServer

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        answers = self.server.answers
        answer = answers.get(self.path) or answers.get(self.path.partition("?")[0])
        if answer is None:
            self.send_error(404)
        else:
            answer(self)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def content(data: bytes, announced: int | None = -1) -> Answer:
    """Send bytes and close; `announced` is the length that is said, -1 for the true one, None for none."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        if announced is not None:
            request.send_header("Content-Length", str(len(data) if announced == -1 else announced))
        request.end_headers()
        request.wfile.write(data)

    return answer


def redirect(place: str) -> Answer:
    """Send the reader somewhere else."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", place)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def endless(request: BaseHTTPRequestHandler) -> None:
    """Send bytes for as long as somebody takes them."""
    request.send_response(200)
    request.end_headers()
    while True:
        request.wfile.write(b"PK\3\4" * 16384)


def silent(request: BaseHTTPRequestHandler) -> None:
    """Begin, and then say nothing any more."""
    content(b"PK\3\4", announced=1000)(request)
    request.wfile.flush()
    server = request.server
    assert isinstance(server, WebServer)
    server.ending.wait(60)


def make_certificate(path: Path) -> Path:
    """Write a certificate for this machine that nobody but itself vouches for, and its key, into one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gymtrain tests")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, *form) + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
