"""The command that opens MLflow and TensorBoard on the runs under a root."""

from __future__ import annotations

import sys
import time
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from gymtrain.cli.arguments import to_place
from gymtrain.cli.terminal import printable

if TYPE_CHECKING:
    from gymtrain.cli.servers import Ending, Server
    from gymtrain.tracking import Stores

_MODULE = (sys.executable, "-m")
# Neither telemetry nor the helper processes that MLflow keeps for jobs of its own.
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def ui(
    root: Annotated[
        str, typer.Argument(help="The root of runs, or a tracking URI of MLflow.", parser=to_place)
    ] = "runs",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, metavar="PORT", help="Of MLflow; a free one by default.")
    ] = None,
    tensorboard_port: Annotated[
        int | None, typer.Option(min=1, max=65535, metavar="PORT", help="Of TensorBoard; a free one by default.")
    ] = None,
    no_mlflow: Annotated[bool, typer.Option("--no-mlflow", help="Leave MLflow out.")] = False,
    no_tensorboard: Annotated[bool, typer.Option("--no-tensorboard", help="Leave TensorBoard out.")] = False,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the addresses in a browser.")] = False,
) -> None:
    """Show runs in MLflow and TensorBoard, on this machine alone, until Ctrl-C."""
    from gymtrain.cli.servers import noting_signals
    from gymtrain.errors import StoreError
    from gymtrain.tracking import Stores, stores_of

    found = stores_of(root)
    stores = Stores(None if no_mlflow else found.tracking_uri, None if no_tensorboard else found.tensorboard)
    if stores == (None, None):
        raise StoreError(f"{root!r} holds nothing but what was left out; drop --no-mlflow or --no-tensorboard")
    if stores.server is not None:
        _tell("MLflow", stores.server, open_browser)
    with noting_signals() as ending, ExitStack() as running:
        servers: list[Server] = []
        for start in _starts(stores, port, tensorboard_port):
            servers.append(start())
            running.callback(servers[-1].end)
        _wait(servers, ending, open_browser)
    if ending.signal is not None:
        raise typer.Exit(128 + ending.signal)


def _starts(stores: Stores, port: int | None, tensorboard_port: int | None) -> Iterator[Callable[[], Server]]:
    from gymtrain.cli.servers import HOST, Server, free_port

    if stores.tracking_uri is not None and stores.server is None:
        port = port or free_port()
        command = [*_MODULE, "mlflow", "server", "--workers", "1"]
        command += ["--host", HOST, "--port", str(port)]
        if stores.database is not None:
            command += ["--artifacts-destination", str(stores.database.parent / "mlartifacts")]
        # Not as an argument, which everybody on the machine can read: it may hold a password.
        store = {"MLFLOW_BACKEND_STORE_URI": stores.tracking_uri}
        yield partial(Server, "MLflow", command, port, "health", _QUIET | store)
    if stores.tensorboard is not None:
        port = tensorboard_port or free_port()
        command = [*_MODULE, "tensorboard.main", "--logdir", str(stores.tensorboard)]
        command += ["--host", HOST, "--port", str(port)]
        yield partial(Server, "TensorBoard", command, port, "", {})


def _wait(servers: Sequence[Server], ending: Ending, open_browser: bool) -> None:
    """Tell the address of each server as it answers, and stay until a signal comes.

    Raises:
        StoreError: A server has ended.
    """
    from gymtrain.cli.servers import PAUSE_SECONDS

    silent = list(servers)
    while servers and ending.signal is None:
        for server in servers:
            server.check()
        for server in [each for each in silent if each.answers()]:
            silent.remove(server)
            _tell(server.name, server.url, open_browser)
            if not silent:
                typer.echo("Ctrl-C ends what was started.", err=True)
        time.sleep(PAUSE_SECONDS)


def _tell(name: str, url: str, open_browser: bool) -> None:
    from gymtrain.tracking import without_password

    typer.echo(f"{name:<12} {printable(without_password(url))}")
    sys.stdout.flush()
    if open_browser and url.isprintable():  # an address may be from a journal
        webbrowser.open(url)
