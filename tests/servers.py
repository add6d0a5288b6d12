"""The real servers that show runs, on the loopback interface, in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

# Without it, MLflow starts seven more processes that run jobs nobody here asks for.
QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


class Server:
    """A server in a process group of its own, which answers from the beginning until `stop`.

    Args:
        arguments: What Python runs, without host and port.
        log: The file of what the server prints.
    """

    def __init__(self, arguments: list[str], log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, *arguments, "--host", "127.0.0.1", "--port", str(self.port)]
        with log.open("wb") as output:
            self._child = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                cwd=log.parent,
                env={**os.environ, **QUIET},
                start_new_session=True,
            )
        for _ in range(1200):
            with contextlib.suppress(OSError), urllib.request.urlopen(self.url, timeout=5):
                return
            if self._child.poll() is not None:
                break
            time.sleep(0.1)
        self.stop()
        raise AssertionError(log.read_text())

    def ask(self, path: str, body: Any = None) -> Any:
        """Return the JSON that the server answers with; with a body, it is posted."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)

    def stop(self) -> None:
        """End the server and what it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGTERM)
        self._child.wait(60)


class MLflowServer(Server):
    """MLflow on a SQLite store.

    Args:
        directory: Where the log, new artifacts and, unless `database` says otherwise, the store are.
        database: A store that there is.
    """

    def __init__(self, directory: Path, database: Path | None = None) -> None:
        store = ["--backend-store-uri", f"sqlite:///{database or directory / 'server.db'}"]
        artifacts = ["--artifacts-destination", str(directory / "artifacts")]
        super().__init__(["-m", "mlflow", "server", "--workers", "1", *store, *artifacts], directory / "server.log")


class TensorBoardServer(Server):
    """TensorBoard on the runs below a directory.

    Args:
        logdir: The directory of the runs.
        directory: Where the log is.
    """

    def __init__(self, logdir: Path, directory: Path) -> None:
        options = ["--logdir", str(logdir), "--load_fast", "false", "--reload_interval", "1"]
        super().__init__(["-m", "tensorboard.main", *options], directory / "tensorboard.log")

    def runs(self, count: int) -> dict[str, list[str]]:
        """Return the tags of each run, once there are so many: the files are read after the port is opened."""
        for _ in range(600):
            found: dict[str, list[str]] = self.ask("/data/plugin/scalars/tags")
            if len(found) == count:
                return found
            time.sleep(0.1)
        raise AssertionError(f"TensorBoard shows {sorted(found)}; expected {count} runs")
