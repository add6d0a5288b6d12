from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gymtrain_trackers import (
    ModelFile,
    Recorder,
    Run,
    Tracker,
    TrackerError,
    load,
    read_journal,
    recorded_run,
    sync,
)
from gymtrain_trackers.history import HistoryTracker
from gymtrain_trackers.origin import is_ours
from gymtrain_trackers.syncing import repair_dead


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("a key")
    return path


def sent(tmp_path: Path, *trackers: Tracker, log: Callable[[Recorder], None] = lambda recorder: None) -> Path:
    """Return the directory of a run that somebody else has recorded and sent."""
    with Recorder(trackers, Run.new(tmp_path / "theirs", "digits", "mlp")) as recorder:
        recorder.log_metrics({"loss": 1.0}, step=1)
        log(recorder)
    directory = recorder.run.directory
    shutil.rmtree(directory / "delivery", ignore_errors=True)
    here = tmp_path / "runs" / "digits" / directory.name
    here.parent.mkdir(parents=True)
    return directory.rename(here)


def rewritten(directory: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the entries of a journal, as whoever sends it can; the run is not ours by what they say."""
    path = directory / "journal.jsonl"
    entries = [change(entry) for entry in read_journal(path)]
    for entry in entries:
        if entry["verb"] == "start":
            entry["inode"] = 1
    path.write_text("".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries))


def test_a_run_is_ours_where_it_was_recorded_also_after_a_move_and_a_copy_is_not(tmp_path):
    with Recorder([], Run.new(tmp_path / "runs", "digits", "mlp")) as recorder:
        pass
    copy = shutil.copytree(recorder.run.directory, tmp_path / "copy")
    moved = (tmp_path / "runs").rename(tmp_path / "moved") / "digits" / recorder.run.directory.name

    assert is_ours(moved)
    assert not is_ours(Path(copy))
    with Recorder([], recorded_run(moved)):
        pass
    assert is_ours(moved)


def test_of_a_strangers_run_no_file_outside_of_its_directory_is_read_and_the_rest_is_delivered(tmp_path, secret):
    def log(recorder: Recorder) -> None:
        own = recorder.run.directory
        (own / "folder").mkdir()
        for link in (own / "folder" / "link", own / "link"):
            link.symlink_to(secret)
        os.mkfifo(own / "pipe")
        (own / "notes.txt").write_text("mine")
        for path in (secret, own / "folder", own / "link", own / "pipe", own / "notes.txt"):
            recorder.log_asset(path)
        recorder.log_graph(secret)
        recorder.log_image(np.zeros((2, 2), np.uint8), "picture", 1)

    directory, told = sent(tmp_path, log=log), HistoryTracker()
    climbing = f"{'../' * len(directory.parts)}{secret.relative_to('/')}"
    rewritten(directory, lambda entry: entry | ({"path": climbing} if entry["verb"] == "log_graph" else {}))

    left_out = sync(directory, {"history": told}).left_out

    assert list(told.assets) == ["notes.txt"]
    assert told.graph is None
    assert told.metrics == {"loss": [(1, 1.0)]}
    assert list(told.images) == [("picture", 1)]
    assert told.status == "FINISHED"
    outside = "is not in the run's directory, and the run was not recorded here"
    patterns = [f"'secret': '{secret}' {outside}", f"folder/link' {outside}", f"{directory}/link' {outside}"]
    patterns += ["pipe' is no regular file", rf"log_graph of None: .*\.\./.*secret' {outside}"]
    for line, pattern in zip(left_out, patterns, strict=True):
        assert re.search(pattern, line), line


def test_what_is_ours_is_read_wherever_it_lies(tmp_path, secret):
    directory, told = sent(tmp_path, log=lambda recorder: recorder.log_asset(secret)), HistoryTracker()

    assert sync(directory, {"history": told}).left_out == []
    assert told.assets == {"secret": secret}


@pytest.mark.parametrize("name", ["../../.bashrc", "/etc/passwd", ""])
def test_names_that_leave_the_folder_of_a_store_are_refused_in_a_journal_too(tmp_path, secret, name):
    def log(recorder: Recorder) -> None:
        recorder.log_asset(secret)
        recorder.log_image(np.zeros((2, 2), np.uint8), "picture", 1)

    directory, told = sent(tmp_path, log=log), HistoryTracker()
    rewritten(directory, lambda entry: entry | ({"name": name} if entry["verb"] in ("log_asset", "log_image") else {}))

    left_out = sync(directory, {"history": told}).left_out

    assert (told.assets, told.images) == ({}, {})
    assert len(left_out) == 2
    assert all(
        each.endswith("expected a relative path such as 'plots/roc.png'") or "secret" in each for each in left_out
    )


def test_a_strangers_model_is_not_delivered_because_it_names_a_module_to_be_imported(tmp_path, secret):
    def log(recorder: Recorder) -> None:
        path = recorder.run.directory / "model.zip"
        path.write_bytes(b"")
        sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        recorder.log_model(ModelFile("model", path, sha256, loader="evil"))

    directory, told, trusting = sent(tmp_path, log=log), HistoryTracker(), HistoryTracker()
    rewritten(directory, lambda entry: entry)

    (line,) = sync(directory, {"history": told}).left_out
    sync(directory, {"history": trusting}, trust=True)

    assert told.models == {}
    assert "a model names a module that is imported where it is served" in line
    assert list(trusting.models) == ["model"]


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("jsonl", {"path": "{outside}/.bashrc"}),
        ("jsonl", {"path": ".bashrc"}),
        ("tensorboard", {"directory": "{outside}"}),
        ("mlflow", {"tracking_uri": "sqlite:///{outside}/mlflow.db"}),
        ("mlflow", {"artifact_location": "{outside}"}),
        ("mlflow", {"tracking_uri": "http://127.0.0.1:9"}),
        ("wandb", {"mode": "online"}),
        ("comet", {"mode": "online"}),
    ],
)
def test_a_strangers_run_is_sent_nowhere_but_beside_itself_unless_that_is_asked_for(
    tmp_path, monkeypatch, kind, arguments
):
    outside = tmp_path / "outside"
    outside.mkdir()
    monkeypatch.chdir(outside)
    directory = sent(tmp_path, load("jsonl"))
    given = {key: value.format(outside=outside) for key, value in arguments.items()}
    recipe = {"name": kind, "type": kind, "arguments": given}
    rewritten(directory, lambda entry: entry | ({"trackers": [recipe]} if entry["verb"] == "start" else {}))

    synced = sync(directory)

    assert "the run was not recorded here, and only its journal says where to send it" in synced.trackers[kind]["error"]
    assert str(next(iter(given.values()))) in synced.trackers[kind]["error"]
    assert list(outside.iterdir()) == []


def test_a_strangers_run_is_sent_where_the_journal_says_when_that_is_asked_for(tmp_path):
    lines = tmp_path / "lines.jsonl"
    directory = sent(tmp_path, load("jsonl", path=str(lines)))
    lines.unlink()
    rewritten(directory, lambda entry: entry)

    refused, trusted = sync(directory), sync(directory, trust=True)

    assert refused.trackers["jsonl"]["status"] == "degraded"
    assert trusted.undelivered == {"jsonl": 0}
    assert '"loss"' in lines.read_text()


@pytest.mark.parametrize("name", ["journal.lock", "delivery", "delivery/jsonl.json", "delivery/.jsonl.json.part"])
def test_a_strangers_run_that_has_links_where_it_is_written_to_is_refused(tmp_path, secret, name):
    directory = sent(tmp_path, load("jsonl"))
    rewritten(directory, lambda entry: entry)
    path = directory / name
    if path.parent.name == "delivery":
        path.parent.mkdir()
    path.unlink(missing_ok=True)
    path.symlink_to(secret)

    with pytest.raises(TrackerError, match=f"{name}' is a symbolic link, which a run that was not recorded here"):
        sync(directory)
    assert secret.read_text() == "a key"


def test_a_recipe_whose_name_is_a_path_is_none(tmp_path, secret):
    directory = sent(tmp_path, load("jsonl"))
    recipe = {"name": "../../../cursor", "type": "jsonl", "arguments": {}}
    rewritten(directory, lambda entry: entry | ({"trackers": [recipe]} if entry["verb"] == "start" else {}))

    assert sync(directory).trackers == {}


def test_arguments_that_no_tracker_takes_do_not_keep_the_others_from_being_told(tmp_path):
    directory = sent(tmp_path, load("jsonl"))
    recipes = [{"name": "one", "type": "jsonl", "arguments": {"path": 5}}]
    recipes += [{"name": "two", "type": "jsonl", "arguments": {}}]
    rewritten(directory, lambda entry: entry | ({"trackers": recipes} if entry["verb"] == "start" else {}))

    synced = sync(directory)

    assert "'jsonl' cannot be made again from the journal" in synced.trackers["one"]["error"]
    assert synced.undelivered == {"two": 0}


def test_a_dead_run_that_somebody_sent_is_delivered_only_when_asked_for(tmp_path):
    directory = sent(tmp_path, load("jsonl"))
    rewritten(directory, lambda entry: entry)
    lines = (directory / "journal.jsonl").read_text().splitlines(keepends=True)
    (directory / "journal.jsonl").write_text("".join(lines[:-1]))
    before = (directory / "journal.jsonl").read_bytes()

    repair_dead(tmp_path / "runs")

    assert (directory / "journal.jsonl").read_bytes() == before
    assert sync(directory).undelivered == {"jsonl": 0}


def test_who_goes_on_with_a_strangers_run_tells_none_of_the_files_that_it_names(tmp_path, secret):
    directory, told = sent(tmp_path, log=lambda recorder: recorder.log_asset(secret)), HistoryTracker()
    rewritten(directory, lambda entry: entry)

    def go_on() -> None:
        with Recorder([told], recorded_run(directory)) as recorder:
            recorder.wait_started()
            (tmp_path / "mine.txt").write_text("mine")
            recorder.log_asset(tmp_path / "mine.txt")

    with pytest.warns(UserWarning, match="secret' is not in the run's directory"):
        go_on()
    assert list(told.assets) == ["mine.txt"]


def test_the_root_that_a_journal_names_has_no_parents_in_it(tmp_path):
    directory = sent(tmp_path, load("jsonl"))
    rewritten(directory, lambda entry: entry | ({"root": "/a/../b"} if entry["verb"] == "start" else {}))

    with pytest.raises(TrackerError, match=r"the entry that starts a run: got .* expected no '\.\.'"):
        sync(directory)
