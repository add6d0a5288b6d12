from __future__ import annotations

import json
import math
import threading

import numpy as np
import pytest

from gymtrain_trackers import (
    ArgumentError,
    DatasetInput,
    Metric,
    Recorder,
    Run,
    Tracker,
    TrackerError,
    TrackingWarning,
    read_journal,
)
from gymtrain_trackers.entries import arguments
from gymtrain_trackers.history import HistoryTracker
from gymtrain_trackers.jsonl import JSONLinesTracker
from gymtrain_trackers.tensorboard import TensorBoardTracker


class CallsTracker(Tracker):
    """Remembers the name of each call, and the thread it came from."""

    name = "calls"

    def __init__(self):
        self.calls = []
        self.threads = set()

    def __getattribute__(self, name):
        if name in ("start", "end") or name.startswith("log_"):
            self.calls.append(name)
            self.threads.add(threading.current_thread())
        return super().__getattribute__(name)


class FailingTracker(CallsTracker):
    """Raises in one of its methods."""

    name = "failing"

    def __init__(self, verb):
        super().__init__()
        self._verb = verb

    def start(self, run):
        self._fail("start")

    def log_params(self, params):
        self._fail("log_params")

    def end(self, status):
        self.status = status
        self._fail("end")

    def _fail(self, verb):
        if verb == self._verb:
            raise ValueError("the store is broken")


class SlowTracker(Tracker):
    """Starts when it is allowed to."""

    name = "slow"

    def __init__(self):
        self.may_start = threading.Event()

    def start(self, run):
        self.may_start.wait(60)


@pytest.fixture
def run(tmp_path):
    return Run.new(tmp_path, "digits", "mlp")


def journal(run):
    return list(read_journal(run.directory / "journal.jsonl"))


def test_every_verb_reaches_the_tracker(run, tmp_path):
    from matplotlib.figure import Figure

    history = HistoryTracker()
    asset = tmp_path / "model.zip"
    asset.write_bytes(b"zip")
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)

    with Recorder([history], run) as recorder:
        recorder.log_params({"lr": 0.1, "hidden": (64, 64)})
        recorder.log_tags({"team": "a"})
        recorder.log_metrics({"train/loss": 0.5, "train/accuracy": 1}, step=1)
        recorder.log_metric_points([Metric("train/loss", 0.25, 2, 1.0)])
        recorder.log_asset(asset, "model/final.zip")
        recorder.log_image(image, "samples/first", step=1)
        recorder.log_figure(Figure(figsize=(2, 1), dpi=50), "curve", step=2)
        recorder.log_inputs([DatasetInput("digits", "abc", "training", {"type": "digits"})])

    assert history.run == run
    assert history.params == {"lr": 0.1, "hidden": [64, 64]}
    assert history.tags == {"team": "a"}
    assert history.metrics == {"train/loss": [(1, 0.5), (2, 0.25)], "train/accuracy": [(1, 1.0)]}
    drawn = run.directory / "figures" / "curve_000002.png"
    assert history.assets == {"model/final.zip": asset, "figures/curve.png": drawn}
    np.testing.assert_array_equal(history.images["samples/first", 1], image)
    assert history.images["curve", 2].shape == (50, 100, 3)
    assert history.inputs == [DatasetInput("digits", "abc", "training", {"type": "digits"})]
    assert history.status == "FINISHED"


def test_the_journal_has_every_call_in_order_as_strict_json(run):
    def refuse(constant):
        raise AssertionError(f"{constant} is not strict JSON")

    with Recorder([], run) as recorder:
        recorder.log_params({"missing_values": math.nan})
        recorder.log_metrics({"loss": math.inf}, step=1)
        recorder.log_metrics({"loss": 1.0}, step=2)

    lines = (run.directory / "journal.jsonl").read_text().splitlines()
    entries = [json.loads(line, parse_constant=refuse) for line in lines]
    assert [entry["verb"] for entry in entries] == ["start", "log_params", "log_metrics", "log_metrics", "end"]
    assert entries[1]["params"] == {"missing_values": "NaN"}
    assert entries[2]["metrics"][0][:3] == ["loss", "Infinity", 1]
    assert entries[4]["status"] == "FINISHED"


def test_a_call_is_on_disk_when_it_returns(run):
    with Recorder([], run) as recorder:
        recorder.log_metrics({"loss": 1.0}, step=1)

        assert journal(run)[-1]["metrics"][0][:3] == ["loss", 1.0, 1]


def test_the_journal_told_again_gives_the_same_run(run):
    first, second = HistoryTracker(), HistoryTracker()
    with Recorder([first], run) as recorder:
        recorder.log_params({"lr": 0.1})
        recorder.log_metrics({"loss": math.inf}, step=1)
        recorder.log_image(np.zeros((2, 3), np.uint8), "grey", step=1)
        recorder.log_inputs([DatasetInput("digits", "abc", "test")])

    for entry in journal(run):
        getattr(second, entry["verb"])(*arguments(entry, run.directory))

    second.now = first.now
    assert vars(second) | {"images": None} == vars(first) | {"images": None}
    assert second.images.keys() == first.images.keys()


def test_a_journal_cut_short_by_a_kill_is_read_up_to_there(run):
    with Recorder([], run) as recorder:
        recorder.log_params({"lr": 0.1})
    path = run.directory / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-3])

    assert [entry["verb"] for entry in read_journal(path)] == ["start", "log_params"]


def test_a_damaged_journal_says_which_line(run):
    with Recorder([], run):
        pass
    path = run.directory / "journal.jsonl"
    path.write_text("rubbish\n" + path.read_text())

    with pytest.raises(TrackerError, match=r"journal\.jsonl, line 1: got 'rubbish\\n'; expected a JSON object"):
        list(read_journal(path))


def test_a_tracker_is_called_by_one_other_thread(run):
    tracker = CallsTracker()

    with Recorder([tracker], run) as recorder:
        recorder.log_params({"a": 1})
        recorder.log_metrics({"loss": 1.0}, step=1)

    assert tracker.calls == ["start", "log_params", "log_metrics", "end"]
    assert len(tracker.threads) == 1
    assert tracker.threads != {threading.current_thread()}


def test_consecutive_metrics_are_told_at_once(run):
    class SlowCalls(CallsTracker):
        may_start = threading.Event()

        def start(self, run):
            self.may_start.wait(60)

    tracker = SlowCalls()

    with Recorder([tracker], run) as recorder:
        for step in range(500):
            recorder.log_metrics({"loss": 1.0}, step=step)
        tracker.may_start.set()

    assert tracker.calls.count("log_metrics") == 1


def test_entering_does_not_wait_for_the_trackers(run):
    slow, history = SlowTracker(), HistoryTracker()

    with Recorder([slow, history], run) as recorder:
        recorder.log_metrics({"loss": 1.0}, step=1)
        assert not recorder.wait_started(0.01)
        slow.may_start.set()
        assert recorder.wait_started(60)

    assert history.metrics == {"loss": [(1, 1.0)]}


def test_points_from_several_threads_all_arrive(run):
    history = HistoryTracker()

    def log(key):
        for step in range(200):
            recorder.log_metrics({key: float(step)}, step=step)

    with Recorder([history], run) as recorder:
        threads = [threading.Thread(target=log, args=(f"key{index}",)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len(journal(run)) == 802
    assert {key: len(points) for key, points in history.metrics.items()} == {f"key{index}": 200 for index in range(4)}


def test_an_exception_ends_the_run_as_failed_with_its_traceback(run):
    history = HistoryTracker()

    with pytest.raises(ZeroDivisionError, match="division by zero"), Recorder([history], run):
        _ = 1 / 0

    assert history.status == "FAILED"
    assert history.tags["gymtrain.error"] == "ZeroDivisionError: division by zero"
    assert "_ = 1 / 0" in history.assets["error.txt"].read_text()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_ends_the_run_as_killed(run, error):
    history = HistoryTracker()

    with pytest.raises(error, match="now"), Recorder([history], run):
        raise error("now")

    assert history.status == "KILLED"


def test_the_caller_may_choose_the_status(run):
    tracker = CallsTracker()
    history = HistoryTracker()

    with Recorder([tracker, history], run) as recorder:
        recorder.close("KILLED")

    assert history.status == "KILLED"
    assert tracker.calls.count("end") == 1


def test_a_failing_tracker_is_left_out_and_warned_of(run):
    failing, history = FailingTracker("log_params"), HistoryTracker()

    recorder = Recorder([failing, history], run)

    def record():
        with recorder:
            recorder.log_params({"lr": 0.1})
            recorder.log_tags({"team": "a"})

    with pytest.warns(TrackingWarning, match="tracker 'failing': log_params raised ValueError: the store is broken"):
        record()

    assert failing.calls == ["start", "log_params", "end"]
    assert failing.status == "FINISHED"
    assert history.tags == {"team": "a"}
    assert [entry["verb"] for entry in journal(run)] == ["start", "log_params", "log_tags", "end"]
    assert recorder.info()["history"] == {"status": "ok"}
    assert recorder.info()["failing"] == {
        "status": "degraded",
        "error": "log_params raised ValueError: the store is broken",
    }


def test_a_tracker_that_did_not_start_is_not_ended(run):
    failing = FailingTracker("start")

    with pytest.warns(TrackingWarning, match="start raised ValueError"), Recorder([failing], run) as recorder:
        recorder.log_params({"lr": 0.1})

    assert failing.calls == ["start"]


def test_a_failing_tracker_is_raised_by_the_next_call_on_request(run):
    failing, history = FailingTracker("start"), HistoryTracker()

    def record():
        with Recorder([failing, history], run, on_error="raise") as recorder:
            assert recorder.wait_started(60)
            recorder.log_params({"lr": 0.1})

    with pytest.raises(TrackerError, match="tracker 'failing': start raised ValueError"):
        record()

    assert history.status == "FAILED"
    assert history.params == {}


def test_a_failing_tracker_is_raised_by_close_on_request(run):
    recorder = Recorder([FailingTracker("end")], run, on_error="raise")

    with pytest.raises(TrackerError, match="tracker 'failing': end raised ValueError"), recorder:
        pass


def test_a_failing_tracker_does_not_hide_the_error_of_the_run(run):
    recorder = Recorder([FailingTracker("end")], run, on_error="raise")

    with (
        pytest.warns(TrackingWarning, match="end raised ValueError"),
        pytest.raises(ValueError, match="the error of the run"),
        recorder,
    ):
        raise ValueError("the error of the run")


def test_a_stuck_tracker_does_not_keep_the_process(run):
    slow = SlowTracker()

    with (
        pytest.warns(TrackingWarning, match=r"'slow': still busy 0\.05 s .*; 3 entries .*gymtrain sync"),
        Recorder([slow], run, close_timeout=0.05) as recorder,
    ):
        recorder.log_params({"lr": 0.1})

    assert recorder.info()["slow"]["status"] == "degraded"
    assert journal(run)[-1]["verb"] == "end"
    slow.may_start.set()


def test_a_deleted_figure_is_warned_of_and_the_rest_told(run):
    slow, history = SlowTracker(), HistoryTracker()

    def record():
        with Recorder([slow, history], run) as recorder:
            recorder.log_image(np.zeros((2, 3), np.uint8), "grey", step=1)
            (run.directory / "figures" / "grey_000001.png").unlink()
            recorder.log_tags({"team": "a"})
            slow.may_start.set()

    with pytest.warns(TrackingWarning, match=r"log_image of 'grey': .*No such file"):
        record()

    assert history.tags == {"team": "a"}


def test_images_of_one_name_and_step_do_not_overwrite_each_other(run):
    with Recorder([], run) as recorder:
        recorder.log_image(np.zeros((2, 3), np.uint8), "a/b?", step=1)
        recorder.log_image(np.ones((2, 3), np.uint8), "a/b!", step=1)

    names = sorted(path.name for path in (run.directory / "figures" / "a").iterdir())
    assert names == ["b__000001.png", "b__000001_2.png"]


def test_logging_outside_the_block_is_refused(run):
    recorder = Recorder([], run)

    with pytest.raises(TrackerError, match="log_params: the recorder of run 'mlp' is not open"):
        recorder.log_params({"lr": 0.1})

    with recorder:
        pass
    with pytest.raises(TrackerError, match="log_tags: the recorder of run 'mlp' is not open"):
        recorder.log_tags({"team": "a"})


def test_calls_that_cannot_be_meant_are_refused_in_the_callers_thread(run, tmp_path):
    with Recorder([], run) as recorder:
        with pytest.raises(
            ArgumentError, match=r"metric 'loss': got the value 'low' at step 1, time .*; expected a number"
        ):
            recorder.log_metrics({"loss": "low"}, step=1)
        with pytest.raises(ArgumentError, match=r"metric 'loss': got the value 1\.0 at step 1\.5"):
            recorder.log_metrics({"loss": 1.0}, step=1.5)
        with pytest.raises(FileNotFoundError, match=r"asset '.*absent' does not exist"):
            recorder.log_asset(tmp_path / "absent")
        with pytest.raises(ArgumentError, match=r"asset name: got '\.\./up'; expected a relative path"):
            recorder.log_asset(tmp_path, "../up")
        with pytest.raises(ArgumentError, match=r"image: got shape \(2, 3, 4\) and dtype float64; expected uint8"):
            recorder.log_image(np.zeros((2, 3, 4)), "grey", step=1)

    with pytest.raises(ArgumentError, match="on_error: got 'ignore'; expected 'warn' or 'raise'"):
        Recorder([], run, on_error="ignore")


def test_two_trackers_of_one_kind_have_names_of_their_own(run, tmp_path):
    trackers = [JSONLinesTracker(), JSONLinesTracker(str(tmp_path / "copy.jsonl"))]

    with Recorder(trackers, run) as recorder:
        pass

    assert [recorder.info()[name]["path"] for name in ("jsonl", "jsonl-2")] == [
        str(run.directory / "metrics.jsonl"),
        str(tmp_path / "copy.jsonl"),
    ]


def test_a_tracker_that_cannot_be_prepared_is_reported_and_waited_for_no_longer(tmp_path):
    class Unprepared(Tracker):
        name = "unprepared"

        def prepare(self):
            raise OSError("no space left")

    history = HistoryTracker()
    with (
        pytest.warns(TrackingWarning, match=r"tracker 'unprepared': prepare raised OSError: no space left"),
        Recorder([Unprepared(), history], Run.new(tmp_path)) as recorder,
    ):
        assert recorder.wait_prepared(10)
        recorder.log_metrics({"train/loss": 1.0}, step=1)

    assert history.status == "FINISHED"


def test_histograms_and_the_graph_reach_the_trackers(run):
    history = HistoryTracker()
    with Recorder([history], run, on_error="raise") as recorder:
        (run.directory / "graph.pb").write_bytes(b"")
        recorder.log_graph(run.directory / "graph.pb")
        recorder.log_histogram("weights", np.array([1, 2]), np.array([0.0, 0.5, 1.0]), step=3)

    counts, edges = history.histograms["weights", 3]
    assert (counts.dtype, counts.tolist()) == (np.int64, [1, 2])
    assert (edges.dtype, edges.tolist()) == (np.float64, [0.0, 0.5, 1.0])
    assert history.graph == run.directory / "graph.pb"


@pytest.mark.parametrize(
    ("counts", "edges", "message"),
    [
        ([1, 2], [0.0, 1.0], r"histogram 'w': got 2 counts and 2 edges.*; expected one edge more than counts"),
        ([1], [1.0, 0.0], "finite and growing"),
        ([1], [0.0, math.inf], "finite and growing"),
        ([], [0.0], "got 0 counts"),
        ([0.5], [0.0, 1.0], "expected whole numbers and edges"),
    ],
)
def test_a_histogram_that_is_none_is_refused(run, counts, edges, message):
    with Recorder([], run) as recorder, pytest.raises(ArgumentError, match=message):
        recorder.log_histogram("w", counts, edges, step=1)


def test_a_recorder_wants_what_one_of_its_trackers_wants(run):
    curious = TensorBoardTracker(histograms=True)

    assert Recorder([HistoryTracker(), curious], run).wants == {"histograms"}
    assert curious.arguments(run)["histograms"] is True
    assert Recorder([HistoryTracker()], run).wants == frozenset()
