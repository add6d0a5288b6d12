from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import BinaryIO

import pytest
from servers import MLflowServer, free_port


@pytest.fixture(scope="session")
def mlflow_root(tmp_path_factory):
    """One root for all tests of MLflow that do not mind each other's runs: a new database costs seconds."""
    return tmp_path_factory.mktemp("runs of mlflow")


@pytest.fixture(autouse=True)
def _no_tracking_uri(monkeypatch):
    for name in ("TRACKING_URI", "TRACKING_USERNAME", "TRACKING_PASSWORD", "TRACKING_TOKEN"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)
    for name in ("RUN_ID", "EXPERIMENT_ID", "EXPERIMENT_NAME"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)


class Proxy:
    """Passes requests on; `fault(method, path, body)` may answer otherwise, by the name of a fault or a reply.

    Where there are `credentials`, the values of the header `Authorization`, nobody without them is let in.
    """

    def __init__(self, server: MLflowServer) -> None:
        self.server = server
        """Where requests are passed on to; may change."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.fault = lambda method, path, body: "pass"
        self.pause = 0.0
        """Seconds that each mebibyte of a request takes."""
        self.arrivals: list[tuple[float, str, str]] = []
        self.credentials: set[str] | None = None
        self.released = threading.Event()
        self._listening: ThreadingHTTPServer | None = None

    def start(self) -> None:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def handle_request(self) -> None:
                body = proxy._read(self.rfile, int(self.headers.get("Content-Length", 0)))
                proxy.arrivals.append((time.monotonic(), self.command, self.path))
                proxy._answer(self, body)

            do_GET = do_POST = do_PUT = do_PATCH = handle_request  # noqa: N815

            def log_message(self, *arguments: object) -> None:
                pass

        class Listening(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client: object) -> None:
                pass  # the client has gone, which some tests are about

        self._listening = Listening(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._listening.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        if self._listening is not None:
            self._listening.shutdown()
            self._listening.server_close()
            self._listening = None

    def _read(self, file: BinaryIO, size: int) -> bytes:
        parts = []
        while size > 0:
            time.sleep(self.pause)
            parts.append(file.read(min(size, 1 << 20)))
            size -= len(parts[-1])
        return b"".join(parts)

    def _answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        if self.credentials is not None and handler.headers.get("Authorization") not in self.credentials:
            self._reply(handler, 401, {"WWW-Authenticate": "Basic"}, b"You are not authenticated.")
            return
        fault = self.fault(handler.command, handler.path, body)
        if fault == "black hole":
            self.released.wait(60)
            return
        if isinstance(fault, tuple):
            status, headers, content = fault
            self._reply(handler, status, headers, content)
            return
        if isinstance(fault, float):
            time.sleep(fault)
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        headers = {
            key: value
            for key, value in handler.headers.items()
            if key.lower() not in ("host", "connection", "authorization")
        }
        with contextlib.closing(connection):
            connection.request(handler.command, handler.path, body, headers)
            reply = connection.getresponse()
            content = reply.read()
        if fault == "cut":  # the server has stored it, and the client never hears of it
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        kind = {"Content-Type": reply.headers.get("Content-Type", "application/json")}
        self._reply(handler, reply.status, kind, content)

    def _reply(self, handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes) -> None:
        handler.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            handler.send_header(key, value)
        handler.end_headers()
        handler.wfile.write(content)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real MLflow server on a SQLite store."""
    server = MLflowServer(tmp_path_factory.mktemp("mlflow server"))
    yield server
    server.stop()


@pytest.fixture
def proxy(server):
    """What stands in front of the server and misbehaves on request."""
    proxy = Proxy(server)
    proxy.start()
    yield proxy
    proxy.released.set()
    proxy.stop()
