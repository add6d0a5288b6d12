from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner, Result

from gymtrain import StoreError, Trainer
from gymtrain.cli import app
from gymtrain.tracking import Stores, stores_of
from gymtrain_trackers import Recorder, Run, load
from gymtrain_trackers.starts import start_entry
from gymtrain_trackers.syncing import recipes

SECONDS = 120.0


class Shown:
    """`gymtrain ui` in a process of its own, and all processes that it has started."""

    def __init__(self, *arguments: object, **environment: str) -> None:
        command = [sys.executable, "-m", "gymtrain", "ui", *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        self.seen: set[psutil.Process] = set()

    def addresses(self, count: int) -> dict[str, str]:
        """Read the addresses as they are printed."""
        assert self.process.stdout is not None
        lines = [self.process.stdout.readline() for _ in range(count)]
        self.look()
        return dict(line.split() for line in lines)

    def look(self) -> None:
        self.seen |= set(psutil.Process(self.process.pid).children(recursive=True))

    def end(self, number: int) -> int:
        self.look()
        self.process.send_signal(number)
        return self.process.wait(SECONDS)

    def left(self) -> list[psutil.Process]:
        return [each for each in self.seen if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def show() -> Iterator[Callable[..., Shown]]:
    started: list[Shown] = []

    def start(*arguments: object, **environment: str) -> Shown:
        started.append(Shown(*arguments, **environment))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.end(signal.SIGTERM)
        each.process.communicate()
    assert [process for each in started for process in each.left()] == []


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["ui", *map(str, arguments)])


def page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=SECONDS) as reply:
        assert reply.status == 200
        return str(reply.read().decode())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a run in MLflow and in TensorBoard."""
    folder = tmp_path_factory.mktemp("runs to show")
    Trainer(
        dataset={"dataset": {"type": "iris"}},
        model={"model": {"type": "linear"}, "training": {"epochs": 1}},
        tracking={"root": str(folder), "trackers": [{"type": "mlflow"}, {"type": "tensorboard"}]},
    ).train()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_both_answer_and_a_signal_leaves_nothing_running(
    number: int, code: int, root: Path, show: Callable[..., Shown]
) -> None:
    shown = show(root)

    addresses = shown.addresses(2)
    pages = {name: page(url) for name, url in addresses.items()}
    experiments = page(f"{addresses['MLflow']}api/2.0/mlflow/experiments/search?max_results=10")
    runs = page(f"{addresses['TensorBoard']}data/runs")

    assert all(re.fullmatch(r"http://127\.0\.0\.1:\d+/", url) for url in addresses.values())
    assert "<html" in pages["MLflow"].lower()
    assert "iris" in experiments
    assert "iris" in runs
    shown.look()
    assert len(shown.seen) >= 2
    arguments = [argument for each in shown.seen for argument in each.cmdline()]
    assert not any(argument.startswith("sqlite:") for argument in arguments)  # it might hold a password
    assert shown.end(number) == code
    assert shown.left() == []


@pytest.mark.slow
def test_a_signal_before_anything_answers_leaves_nothing_running_too(root: Path, show: Callable[..., Shown]) -> None:
    shown = show(root)
    while not shown.seen:
        shown.look()
        time.sleep(0.01)

    assert shown.end(signal.SIGTERM) == 143
    assert shown.left() == []


@pytest.mark.slow
def test_a_server_that_dies_ends_the_other_with_its_last_words(root: Path, show: Callable[..., Shown]) -> None:
    shown = show(root, "--no-mlflow")
    shown.addresses(1)
    child = next(each for each in shown.seen if "tensorboard.main" in each.cmdline())

    child.kill()
    _, errors = shown.process.communicate(timeout=SECONDS)

    assert shown.process.returncode == 2
    assert "TensorBoard ended with code -9; the last that it said:" in errors
    assert "TensorBoard" in errors.splitlines()[-1]


@pytest.mark.slow
def test_ports_are_chosen_and_the_browser_opens_the_addresses(
    root: Path, tmp_path: Path, show: Callable[..., Shown]
) -> None:
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f"#!/bin/sh\necho $1 >> {opened}\n")
    browser.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    shown = show(root, "--no-mlflow", "--tensorboard-port", port, "--open", BROWSER=f"{browser} %s")

    assert shown.addresses(1) == {"TensorBoard": f"http://127.0.0.1:{port}/"}
    while not (opened.exists() and opened.read_text().endswith("\n")):  # the shell makes the file before it fills it
        time.sleep(0.01)
    assert opened.read_text().strip() == f"http://127.0.0.1:{port}/"


def test_a_port_that_is_taken_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        result = run(tmp_path, "--tensorboard-port", taken.getsockname()[1])

    assert result.exit_code == 2
    assert "TensorBoard cannot listen on port" in result.output


def test_the_address_of_a_server_is_told_and_nothing_is_started() -> None:
    result = run("http://127.0.0.1:5000")

    assert (result.exit_code, result.stdout.split()) == (0, ["MLflow", "http://127.0.0.1:5000"])


def test_a_root_without_a_store_is_an_error_that_says_how_to_get_one(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").mkdir()

    for arguments, message in [
        ([tmp_path / "absent"], "is no directory; give a tracking.root"),
        ([tmp_path.parent / tmp_path.name / "tensorboard"], "holds neither mlflow.db nor tensorboard/; train with"),
        ([tmp_path, "--no-tensorboard"], "holds nothing but what was left out"),
        (["sqlite:////absent/mlflow.db"], "there is no database '/absent/mlflow.db'"),
    ]:
        result = run(*arguments)
        assert result.exit_code == 2
        assert message in result.output


def recorded(root: Path, **trackers: Any) -> None:
    """A run whose journal names trackers, of which none is told anything."""
    told = [load(kind, **arguments) for kind, arguments in trackers.items()]
    with Recorder([], Run.new(root)) as recorder:
        pass
    journal = recorder.run.directory / "journal.jsonl"
    start = start_entry(recorder.run, recipes({tracker.name: tracker for tracker in told}, recorder.run))
    journal.write_text(json.dumps(start) + "\n")


def test_the_store_is_where_the_newest_run_says_or_beside_the_runs(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    (tmp_path / "tensorboard").mkdir()
    beside = Stores(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "tensorboard")
    assert stores_of(str(tmp_path)) == beside

    recorded(tmp_path, mlflow={"tracking_uri": "http://127.0.0.1:5000"})
    assert stores_of(str(tmp_path)) == Stores("http://127.0.0.1:5000", tmp_path / "tensorboard")

    (tmp_path / "elsewhere").mkdir()
    recorded(tmp_path, mlflow={}, tensorboard={"directory": str(tmp_path / "elsewhere")})
    assert stores_of(str(tmp_path)) == Stores(beside.tracking_uri, tmp_path / "elsewhere")


def test_a_database_is_shown_with_the_events_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert stores_of(uri) == Stores(uri, None)

    (tmp_path / "tensorboard").mkdir()

    assert stores_of(uri) == Stores(uri, tmp_path / "tensorboard")


def test_a_uri_that_nothing_can_be_made_of_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a directory, which MLflow refuses"):
        stores_of(f"file:{tmp_path}")
    with pytest.raises(StoreError, match="lacks its password"):
        stores_of("postgresql://me:***@db/mlflow")
