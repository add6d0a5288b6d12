from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gymtrain_trackers import ArgumentError, Recorder, Run, TrackingWarning, load
from gymtrain_trackers.addresses import is_masked, without_password
from gymtrain_trackers.mlflow_store import with_password

# Whole, and as it may be shown.
ADDRESSES = {
    "http://me:s3cret@host:5000/x": "http://me:***@host:5000/x",
    "http://:s3cret@host": "http://:***@host",
    "http://me:s3@cret@host/x": "http://me:***@host/x",
    "https://s3cret@host/x": "https://***@host/x",
    "http://me:s3/cret@host/x": "http://me:***@host/x",
    "https://host/x?token=s3cret": "https://host/x?token=***",
    "https://host/x?a=1&X-Amz-Signature=s3cret#here": "https://host/x?a=1&X-Amz-Signature=***#here",
    "postgresql://me:s3/c?r#et@db/x": "postgresql://me:***@db/x",
    "postgresql://me:53/cret@db/x": "postgresql://me:***@db/x",
    "postgresql+psycopg2://me:s3cret@db:5432/x": "postgresql+psycopg2://me:***@db:5432/x",
    "postgresql://db/x?user=me&password=s3cret": "postgresql://db/x?user=me&password=***",
    "mysql://me:s3cret@db/x?ssl_ca=a&PASSWD=s3cret": "mysql://me:***@db/x?ssl_ca=a&PASSWD=***",
}
OPEN = [
    "http://host:5000/#/experiments/1/runs/2?me@here",
    "http://host:5000/me@here",
    "postgresql://me@db/x",
    "sqlite:////tmp/me@here/mlflow.db",
    "s3://bucket/a@b",
    "me@example.org said: 12:30 at http://host/ or me@example.com",
    "http://host/x?experiment=1&tokenizer=bpe",
]


@pytest.mark.parametrize(("address", "shown"), ADDRESSES.items())
def test_no_password_of_an_address_is_shown(address, shown):
    text = f"GET {address} failed: '{address}', \"{address}\" (caused by {address})"

    assert without_password(address) == shown
    assert is_masked(shown)
    assert "cret" not in without_password(text)
    assert without_password(shown) == shown


@pytest.mark.parametrize("text", OPEN)
def test_what_holds_no_password_stays_as_it_is(text):
    assert without_password(text) == text
    assert not is_masked(text)


@pytest.mark.parametrize(("address", "shown"), ADDRESSES.items())
def test_a_password_is_put_back_from_the_environment(monkeypatch, address, shown):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)

    assert with_password(shown) == address


@pytest.mark.parametrize("shown", [shown for shown in ADDRESSES.values() if "=***" in shown or "sql" in shown])
def test_a_password_that_nothing_says_is_asked_for(shown):
    with pytest.raises(ArgumentError, match="lacks its password; set MLFLOW_TRACKING_URI"):
        load("mlflow", tracking_uri=shown)


@pytest.mark.parametrize("shown", ["http://me:***@host/x", "https://***@host/x"])
def test_without_it_a_server_is_asked_with_the_credentials_of_the_environment(shown):
    assert with_password(shown) == f"{shown.partition(':')[0]}://host/x"


def test_the_place_of_the_artifacts_is_written_without_its_password(tmp_path):
    tracker = load("mlflow", artifact_location="s3://me:s3cret@host/bucket")

    told = tracker.arguments(Run.new(tmp_path))

    assert told["artifact_location"] == "s3://me:***@host/bucket"
    with pytest.raises(ArgumentError, match=r"artifact_location: 's3://me.* lacks its password"):
        load("mlflow", **told)


@pytest.mark.parametrize("address", [address for address in ADDRESSES if address.startswith("http")])
def test_neither_the_journal_nor_the_warning_of_a_store_that_is_away_holds_the_password(tmp_path, address):
    away = address.replace("host:5000", "host").replace("host", "127.0.0.1:9")

    def record() -> Recorder:
        with Recorder([load("mlflow", tracking_uri=away)], Run.new(tmp_path), close_timeout=0.5) as recorder:
            recorder.log_tags({"team": "a"})
        return recorder

    with pytest.warns(TrackingWarning) as warned:
        recorder = record()

    told = [str(each.message) for each in warned] + [json.dumps(recorder.info())]
    files = [Path(folder) / name for folder, _, names in os.walk(tmp_path) for name in names]
    assert not any(b"s3" in file.read_bytes() for file in files)
    assert not any("s3" in each for each in told)
