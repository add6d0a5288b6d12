from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gymtrain.cli import app
from gymtrain_trackers import Recorder, Run


def run(*arguments: object, **env: str) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=env)


def names(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [each["name"] for each in json.loads(result.stdout)]


def recorded(
    root: Path, name: str, params: dict[str, Any], metrics: dict[str, float], tags: dict[str, str] | None = None
) -> None:
    with Recorder([], Run.new(root, "digits", name)) as recorder:
        recorder.log_params(params)
        recorder.log_metrics(metrics, step=1)
        recorder.log_tags(tags or {})


@pytest.fixture
def three(tmp_path: Path) -> Path:
    recorded(
        tmp_path, "low", {"model/type": "mlp", "training/optimizer/lr": 0.001}, {"test/accuracy": 0.5, "val/loss": 3.0}
    )
    recorded(
        tmp_path, "high", {"model/type": "mlp", "training/optimizer/lr": 0.01}, {"test/accuracy": 0.9, "val/loss": 1.0}
    )
    recorded(tmp_path, "none", {"model/type": "linear"}, {"test/accuracy": float("nan")})
    return tmp_path


@pytest.mark.parametrize("of_mlflow", [False, True])
def test_the_table_shows_runs_with_their_best_metrics_the_monitored_first(of_mlflow: bool, widths: Path) -> None:
    result = run("runs", f"sqlite:///{widths / 'mlflow.db'}" if of_mlflow else widths)

    _, header, _, newest, oldest, _ = result.stdout.splitlines()
    assert result.exit_code == 0
    assert header.strip("┃ ").replace("┃", "").split()[:8] == [
        "name", "id", "experiment", "status", "started", "duration", "epochs", "best/val_loss",
    ]  # fmt: skip
    assert "test/accuracy" in header
    assert "width 8" in newest
    assert "FINISHED" in newest
    assert "width 4" in oldest


@pytest.mark.parametrize(
    ("key", "order"),
    [
        ("test/accuracy", ["high", "low", "none"]),
        ("val/loss", ["high", "low", "none"]),
        ("training/optimizer/lr", ["low", "high", "none"]),
        ("name", ["high", "low", "none"]),
        ("started", ["none", "high", "low"]),
    ],
)
def test_the_best_come_first_and_those_without_a_value_last(key: str, order: list[str], three: Path) -> None:
    assert names(run("runs", three, "--sort", key, "--json")) == order


def test_the_direction_may_be_given(three: Path) -> None:
    assert names(run("runs", three, "--sort", "val/loss", "--descending", "--json")) == ["low", "high", "none"]
    assert names(run("runs", three, "--sort", "test/accuracy", "--ascending", "--json")) == ["low", "high", "none"]
    assert names(run("runs", three, "--ascending", "--json")) == ["low", "high", "none"]


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--where", "model/type=mlp"], ["high", "low"]),
        (["--where", "model/type=mlp", "--where", "training/optimizer/lr=1e-3"], ["low"]),
        (["--where", "model/type=mlp", "--limit", 1], ["high"]),
        (["--experiment", "digits", "--status", "finished"], ["none", "high", "low"]),
        (["--status", "DIED"], []),
    ],
)
def test_conditions_leave_the_runs_of_which_all_are_true(options: list[object], left: list[str], three: Path) -> None:
    assert names(run("runs", three, *options, "--json")) == left


def test_columns_are_chosen_among_metrics_params_and_tags(tmp_path: Path) -> None:
    recorded(tmp_path, "mlp", {"model/type": "mlp"}, {"val/loss": 0.25}, {"team": "flowers"})

    result = run("runs", tmp_path, "--columns", "val/loss, model/type,team")

    assert result.stdout.splitlines()[3].replace("│", "").split()[-3:] == ["0.25", "mlp", "flowers"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sort", "val/los"], "no run has the metric, param or tag 'val/los'; did you mean 'val/loss'?"),
        (["--columns", "lr"], "no run has the metric, param or tag 'lr'; did you mean 'training/optimizer/lr'?"),
        (["--where", "modle/type=mlp"], "no run has the metric, param or tag 'modle/type'; did you mean 'model/type'?"),
        (["--where", "mlp"], "--where: got 'mlp'; expected KEY=VALUE, such as model/type=mlp"),
        (["--experiment", "digit"], "no run has the experiment 'digit'; did you mean 'digits'?"),
        (["--status", "finnished"], "did you mean 'FINISHED'?"),
        (["--limit", "0"], "Invalid value for '--limit'"),
    ],
)
def test_what_no_run_has_is_an_error_that_names_the_nearest(options: list[str], message: str, three: Path) -> None:
    result = run("runs", three, *options)

    assert result.exit_code == 2
    assert message in result.output


def test_a_store_without_runs_is_said_to_be_one_and_no_store_is_an_error(tmp_path: Path) -> None:
    empty, absent = run("runs", tmp_path), run("runs", tmp_path / "absent")

    assert (empty.exit_code, empty.stdout) == (0, f"There are no runs in {tmp_path}.\n")
    assert absent.exit_code == 2
    assert "is no directory; give a tracking.root" in absent.output


@pytest.mark.parametrize("columns", [40, 80, 100, 140])
def test_a_terminal_gets_what_it_has_room_for_and_is_told_the_rest(columns: int, widths: Path) -> None:
    result = run("runs", widths, COLUMNS=str(columns), FORCE_COLOR="1", NO_COLOR="1", TERM="xterm")

    assert max(map(len, result.stdout.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()[3:5])) <= columns
    assert "no room for" in result.stdout
    assert ("best/val_loss" in result.stdout.splitlines()[1]) == (columns >= 80)


def test_what_a_terminal_would_obey_is_shown_as_text(tmp_path: Path) -> None:
    evil = "\x1b[31mred\x1b]0;title\x07\n\x9b2J[bold]\u202e"
    recorded(tmp_path, evil, {evil: evil}, {evil: 1.0}, {"team": evil})
    recorded(tmp_path, "other", {"a": 1}, {"b": 1.0})

    shown = [
        run("runs", tmp_path, "--columns", "team"),
        run("runs", tmp_path, "--columns", evil),
        run("runs", tmp_path),
        run("runs", tmp_path, "--json"),
        run("compare", evil, "other", "--store", tmp_path),
        run("compare", evil, "other", "--store", tmp_path, "--json"),
    ]

    for result in shown:
        assert result.exit_code == 0, result.output
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(result.stdout)
    assert "[bold]" in shown[0].stdout


def test_a_comparison_shows_what_differs_and_nothing_else(widths: Path) -> None:
    result = run("compare", "width 4", "width 8", "--store", widths)

    assert result.exit_code == 0
    assert "model/hidden" in result.stdout
    assert "[4]" in result.stdout
    assert "dataset/type" not in result.stdout
    assert "test/loss" in result.stdout
    assert " *" in result.stdout
    assert "No difference" not in result.stdout
    everything = run("compare", "width 4", "width 8", "--store", widths, "--all").stdout
    assert "dataset/type" in everything
    assert "train digest" in everything
    assert "torch" in everything


def test_a_run_its_bundle_and_its_likeness_in_mlflow_are_identical(widths: Path) -> None:
    (directory,) = (widths / "widths").glob("width 8-*")
    uri = f"sqlite:///{widths / 'mlflow.db'}"

    result = run("compare", directory, widths / "width 8.zip", "width 8", "--store", uri)
    as_json = run("compare", directory, "width 8", "--store", uri, "--json")

    assert result.exit_code == 0
    assert "No difference in spec, data, environment, metrics.\n" in result.stdout
    content = json.loads(as_json.stdout)
    assert (content["identical"], content["unknown"], content["spec"]) == (True, {}, {})


def test_a_comparison_as_json_has_values_differences_and_the_better(widths: Path) -> None:
    content = json.loads(run("compare", "width 4", "width 8", "--store", widths, "--json").stdout)

    assert content["spec"] == {"model/hidden": ["[4]", "[8]"]}
    assert content["data"] == content["environment"] == {}
    loss = content["metrics"]["test/loss"]
    assert loss["differences"] == [0.0, loss["values"][1] - loss["values"][0]]
    assert loss["best"] == [loss["values"].index(min(loss["values"]))]
    assert [each["name"] for each in content["runs"]] == ["width 4", "width 8"]


def test_what_cannot_be_compared_is_an_error(widths: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.zip").write_bytes(b"PK")

    for arguments, message in [
        (["width 4"], "expected at least two"),
        (["width 4", "width 5"], "there is no run 'width 5' in"),
        (["width 4", tmp_path], "is not the directory of a run: it has no journal.jsonl"),
        (["width 4", tmp_path / "broken.zip"], "broken.zip"),
    ]:
        result = run("compare", *arguments, "--store", widths)
        assert result.exit_code == 2
        assert message in result.output
        assert "Traceback" not in result.output


def test_a_damaged_run_does_not_hide_the_others(three: Path) -> None:
    damaged = next(three.glob("*/low-*"))
    (damaged / "journal.jsonl").write_bytes(bytes(10))

    shown, compared = run("runs", three, "--json"), run("compare", damaged, "high", "--store", three)

    assert names(shown) == ["none", "high", damaged.name]
    assert [each["status"] for each in json.loads(shown.stdout)][-1] == "DAMAGED"
    assert compared.exit_code == 2
    assert "has no entry that starts a run" in compared.output


def test_a_root_with_damaged_and_hostile_runs_still_shows_the_others(widths: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(widths, tmp_path / "root"))
    good = {"id": "0" * 32, "experiment": "odd", "name": "odd \x1b[2J", "root": str(root), "started": 1.0}
    oddities: list[dict[str, Any]] = [{"started": "soon"}, {"started": 1e300}, {"trackers": 5}, {"root": None}]
    for number, oddity in enumerate(oddities):
        place = root / "odd" / str(number)
        place.mkdir(parents=True)
        line = {"verb": "start", **good, "directory": str(place), **oddity}
        (place / "journal.jsonl").write_text(json.dumps(line) + "\n")

    result = run("runs", root)

    assert result.exit_code == 0, result.output
    assert "width 8" in result.stdout
    assert "\x1b[2J" not in result.stdout
