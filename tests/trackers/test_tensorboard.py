from __future__ import annotations

import math
import time

import pytest
from servers import TensorBoardServer

from gymtrain_trackers import ArgumentError, Recorder, Run, sync
from gymtrain_trackers.tensorboard import TensorBoardTracker


@pytest.fixture
def run(tmp_path):
    return Run.new(tmp_path, "digits", "mlp")


def read(directory):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return events


def hparams(events):
    from tensorboard.plugins.hparams import metadata

    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    stored = metadata.parse_session_start_info_plugin_data(content).hparams
    return {key: getattr(value, value.WhichOneof("kind")) for key, value in stored.items()}


def outcome(events):
    from tensorboard.plugins.hparams import api_pb2, metadata

    content = events.SummaryMetadata(metadata.SESSION_END_INFO_TAG).plugin_data.content
    return api_pb2.Status.Name(metadata.parse_session_end_info_plugin_data(content).status)


def test_the_status_is_that_of_the_last_end_also_when_all_is_told_again(run):
    shown = []
    for step, status in enumerate(["FAILED", "KILLED", "FINISHED"]):
        recorder = Recorder([TensorBoardTracker()], run)
        with recorder:
            recorder.log_metrics({"loss": 1.0}, step=step)
            assert recorder.wait_started(60)
            while step and len(read(recorder.info()["tensorboard"]["directory"]).Scalars("loss")) <= step:
                time.sleep(0.05)
            shown += [outcome(read(recorder.info()["tensorboard"]["directory"]))] if step else []
            recorder.close(status)
        events = read(recorder.info()["tensorboard"]["directory"])
        shown.append(outcome(events))
    (run.directory / "delivery" / "tensorboard.json").unlink()
    before = [path.read_bytes() for path in (run.root / "tensorboard").rglob("*.gymtrain")]

    sync(run.directory)

    success, failure, running = "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"
    assert shown == [failure, running, failure, running, success]
    assert [point.step for point in events.Scalars("loss")] == [0, 1, 2]
    assert [len(path.read_bytes()) for path in (run.root / "tensorboard").rglob("*.gymtrain")] == [*map(len, before)]
    assert outcome(read(recorder.info()["tensorboard"]["directory"])) == success


def test_a_run_is_one_directory_with_one_file(run, tmp_path):
    with Recorder([TensorBoardTracker()], run, on_error="raise") as recorder:
        recorder.log_params({"lr": 0.1})
        recorder.log_metrics({"loss": 1.0}, step=1)
        recorder.log_params({"late": 1})

    directory = tmp_path / "tensorboard" / "digits" / f"mlp-{run.id[:8]}"
    files = [path for path in (tmp_path / "tensorboard").rglob("*") if path.is_file()]
    assert [path.parent for path in files] == [directory]
    assert recorder.info()["tensorboard"] == {
        "directory": str(directory),
        "ui": f"tensorboard --logdir {tmp_path}/tensorboard",
        "status": "ok",
    }


def test_hparams_have_one_type_per_kind_of_value(run):
    tracker = TensorBoardTracker()
    tracker.start(run)
    tracker.log_params({"flag": True, "epochs": 3, "lr": 0.1, "optimizer": "adam"})
    tracker.log_params({"seed": None, "hidden": [64, 64]})
    tracker.end("FINISHED")

    assert hparams(read(tracker.info()["directory"])) == {
        "flag": True,
        "epochs": 3.0,
        "lr": 0.1,
        "optimizer": "adam",
        "seed": "none",
        "hidden": "[64, 64]",
    }


def test_values_that_are_not_finite_are_kept(run):
    tracker = TensorBoardTracker()
    tracker.start(run)
    tracker.log_metric("loss", math.nan, step=1)
    tracker.log_metric("loss", math.inf, step=2)
    tracker.end("FAILED")

    first, second = (event.value for event in read(tracker.info()["directory"]).Scalars("loss"))
    assert math.isnan(first)
    assert second == math.inf


def test_points_are_there_before_the_run_ends(run):
    tracker = TensorBoardTracker()
    tracker.start(run)
    tracker.log_metric("loss", 0.5, step=1)

    assert [event.value for event in read(tracker.info()["directory"]).Scalars("loss")] == [0.5]
    tracker.end("FINISHED")


def test_params_and_tags_are_tables_under_text(run):
    tracker = TensorBoardTracker()
    tracker.start(run)
    tracker.log_params({"a|b": "two\nlines"})
    tracker.log_tags({"team": "a"})
    tracker.end("FINISHED")

    events = read(tracker.info()["directory"])
    text = {tag: events.Tensors(tag)[-1].tensor_proto.string_val[0].decode() for tag in ("params", "tags")}
    assert text["params"] == "| key | value |\n| --- | --- |\n| a\\|b | two lines |"
    assert text["tags"].endswith("| team | a |")


def test_the_directory_may_be_given_and_does_not_follow_the_process(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tracker = TensorBoardTracker("board")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")

    tracker.start(run)
    tracker.end("FINISHED")

    assert tracker.info()["directory"] == str(tmp_path / "board" / "digits" / f"mlp-{run.id[:8]}")


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(ArgumentError, match=r"tensorboard directory: '.*file' is a file; expected a directory"):
        TensorBoardTracker(str(tmp_path / "file"))


@pytest.fixture
def server(tmp_path):
    """Starts TensorBoard on the runs below `tmp_path`, which must exist by then."""
    started = []

    def start():
        started.append(TensorBoardServer(tmp_path / "tensorboard", tmp_path))
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.mark.slow
def test_the_real_server_shows_scalars_and_compares_the_hparams_of_all_runs(tmp_path, server):
    for name, params in (("first", {"lr": 0.1}), ("second", {"lr": 0.2, "dropout": 0.5})):
        with Recorder([TensorBoardTracker()], Run.new(tmp_path, "digits", name), on_error="raise") as recorder:
            recorder.log_params(params)
            recorder.log_metrics({"train/loss": params["lr"]}, step=1)

    tensorboard = server()
    first, second = sorted(tensorboard.runs(2))
    points = tensorboard.ask(f"/data/plugin/scalars/scalars?run={first}&tag=train%2Floss")
    experiment = tensorboard.ask("/data/plugin/hparams/experiment", {"experimentName": ""})

    assert (first[:13], second[:14]) == ("digits/first-", "digits/second-")
    assert [(step, value) for _, step, value in points] == [(1, pytest.approx(0.1))]
    assert sorted(info["name"] for info in experiment["hparamInfos"]) == ["dropout", "lr"]
    assert [info["name"]["tag"] for info in experiment["metricInfos"]] == ["train/loss"]
