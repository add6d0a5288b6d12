from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import wandb_log

from gymtrain_trackers import Metric, Run, Tracker
from gymtrain_trackers.comet import CometTracker
from gymtrain_trackers.conformance import Stored, TrackerConformance
from gymtrain_trackers.history import HistoryTracker
from gymtrain_trackers.images import decode_png
from gymtrain_trackers.jsonl import JSONLinesTracker
from gymtrain_trackers.mlflow import MLflowTracker
from gymtrain_trackers.strict_json import as_text
from gymtrain_trackers.tensorboard import TensorBoardTracker
from gymtrain_trackers.wandb import EXIT_CODES, RESERVED, WandbTracker


def texts(values):
    return {key: as_text(value) for key, value in values.items()}


def contents(assets):
    """Return the content of each file by its name, also of those in directories."""
    files = {name: path for name, path in assets.items() if path.is_file()}
    for name in assets.keys() - files.keys():
        inside = [path for path in assets[name].rglob("*") if path.is_file()]
        files |= {f"{name}/{path.relative_to(assets[name]).as_posix()}": path for path in inside}
    return {name: path.read_bytes() for name, path in files.items()}


class TestTheNullTracker(TrackerConformance):
    @pytest.fixture
    def tracker(self) -> Tracker:
        return Tracker()

    def read(self, tracker: Tracker, run: Run) -> Stored:
        return Stored()


class TestHistory(TrackerConformance):
    @pytest.fixture
    def tracker(self) -> HistoryTracker:
        return HistoryTracker()

    def read(self, tracker: HistoryTracker, run: Run) -> Stored:
        return Stored(
            params=texts(tracker.params),
            tags=texts(tracker.tags),
            metrics=tracker.metrics,
            assets=contents(tracker.assets),
            images={key: image.shape for key, image in tracker.images.items()},
            inputs={each.name: each.context for each in tracker.inputs},
            status=tracker.status,
            models={name: model.path.read_bytes() for name, model in tracker.models.items()},
            histograms={key: counts.sum() for key, (counts, _) in tracker.histograms.items()},
            graph=None if tracker.graph is None else tracker.graph.read_bytes(),
        )


class TestJSONLines(TrackerConformance):
    @pytest.fixture
    def tracker(self) -> JSONLinesTracker:
        return JSONLinesTracker()

    def read(self, tracker: JSONLinesTracker, run: Run) -> Stored:
        def refuse(constant: str) -> float:
            raise AssertionError(f"{constant} is not strict JSON")

        lines = (run.directory / "metrics.jsonl").read_text().splitlines()
        params, tags, metrics, assets, inputs, histograms = {}, {}, {}, {}, {}, {}
        for entry in (json.loads(line, parse_constant=refuse) for line in lines):
            match entry["kind"]:
                case "params":
                    params |= texts(entry["params"])
                case "tags":
                    tags |= texts(entry["tags"])
                case "metric":
                    metrics.setdefault(entry["key"], []).append((entry["step"], float(entry["value"])))
                case "histogram":
                    histograms[entry["name"], entry["step"]] = sum(entry["counts"])
                case "asset":
                    assets |= contents({entry["name"]: Path(entry["path"])})
                case "input":
                    inputs[entry["name"]] = entry["context"]
        return Stored(params, tags, metrics, assets, None, inputs, entry["status"], histograms)


class TestTensorBoard(TrackerConformance):
    @pytest.fixture
    def tracker(self) -> TensorBoardTracker:
        return TensorBoardTracker()

    def read(self, tracker: TensorBoardTracker, run: Run) -> Stored:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.plugins.hparams import api_pb2, metadata
        from tensorboard.util import tensor_util

        events = EventAccumulator(tracker.info()["directory"], size_guidance={"scalars": 0, "images": 0, "tensors": 0})
        events.Reload()

        def hparams(tag):
            return events.SummaryMetadata(tag).plugin_data.content

        session = metadata.parse_session_start_info_plugin_data(hparams(metadata.SESSION_START_INFO_TAG))
        outcome = metadata.parse_session_end_info_plugin_data(hparams(metadata.SESSION_END_INFO_TAG)).status
        params = {key: str(getattr(value, value.WhichOneof("kind"))) for key, value in session.hparams.items()}
        return Stored(
            params=params,
            tags=table(events, "tags"),
            metrics={key: [(e.step, e.value) for e in events.Scalars(key)] for key in events.Tags()["scalars"]},
            images={
                (key, e.step): decode_png(e.encoded_image_string).shape
                for key in events.Tags()["images"]
                for e in events.Images(key)
            },
            # TensorBoard knows success and failure only.
            status="FINISHED" if outcome == api_pb2.STATUS_SUCCESS else None,
            histograms={
                (tag, each.step): tensor_util.make_ndarray(each.tensor_proto)[:, 2].sum()
                for tag in events.Tags()["tensors"]
                if events.SummaryMetadata(tag).plugin_data.plugin_name == "histograms"
                for each in events.Tensors(tag)
            },
            graph=events.Graph().SerializeToString() if events.Tags()["graph"] else None,
        )


def table(events, tag):
    if tag not in events.Tags()["tensors"]:
        return {}
    markdown = events.Tensors(tag)[-1].tensor_proto.string_val[0].decode()
    return dict(line.strip("| ").split(" | ", 1) for line in markdown.splitlines()[2:])


class TestMLflow(TrackerConformance):
    takes_calls_twice = True

    @pytest.fixture
    def root(self, mlflow_root: Path) -> Path:
        return mlflow_root

    @pytest.fixture
    def tracker(self, root: Path) -> MLflowTracker:
        return MLflowTracker(log_model=True)

    def read(self, tracker: MLflowTracker, run: Run) -> Stored:
        from mlflow import MlflowClient

        info = tracker.info()
        client = MlflowClient(tracking_uri=info["tracking_uri"])
        stored = client.get_run(info["run_id"])
        artifacts = Path(unquote(stored.info.artifact_uri.removeprefix("file://")))
        files = [path for path in artifacts.rglob("*") if path.is_file()]
        logged = client.search_logged_models([info["experiment_id"]], f"source_run_id = '{info['run_id']}'")
        places = {each.name: Path(unquote(each.artifact_location.removeprefix("file://"))) for each in logged}
        assert len(places) == len(logged) == len(stored.outputs.model_outputs if stored.outputs else ())
        images = {}
        for path in files:
            if path.parent.name == "images" and path.suffix == ".png":
                name, _, step, *_ = path.name.split("+")
                images[name, int(step)] = decode_png(path.read_bytes()).shape
        return Stored(
            params=stored.data.params,
            tags=stored.data.tags,
            metrics={
                key: [(point.step, point.value) for point in client.get_metric_history(info["run_id"], key)]
                for key in stored.data.metrics
            },
            assets={path.relative_to(artifacts).as_posix(): path.read_bytes() for path in files},
            images=images,
            inputs={each.dataset.name: each.tags[0].value for each in stored.inputs.dataset_inputs},
            status=stored.info.status,
            models={name: (place / "data" / "model.zip").read_bytes() for name, place in places.items()},
        )


@pytest.mark.slow
class TestWandb(TrackerConformance):
    @pytest.fixture
    def tracker(self) -> WandbTracker:
        return WandbTracker(mode="offline")

    def read(self, tracker: WandbTracker, run: Run) -> Stored:
        directory = Path(tracker.info()["directory"])
        (log,) = directory.glob("*.wandb")
        exit_code = wandb_log.exit_code(log)
        config = wandb_log.config(log)
        metrics, images, histograms = {}, {}, {}
        for row in wandb_log.rows(log):
            names = [key for key in row if key not in RESERVED and "." not in key.removeprefix("../")]
            step = next(int(row[axis]) for axis in ("epoch", "batch/step", "system/step") if axis in row)
            for name in names:
                metrics.setdefault(name, []).append((step, float(row[name])))
            for name in [key.removesuffix("._type") for key in row if row[key] == "image-file"]:
                images[name, step] = row[f"{name}.height"], row[f"{name}.width"]
            for name in [key.removesuffix("._type") for key in row if row[key] == "histogram"]:
                histograms[name, step] = sum(row[f"{name}.values"])
        files = [path for path in (directory / "files").rglob("*") if path.is_file()]
        return Stored(
            params=texts(
                {key: value for key, value in config.items() if key.partition("/")[0] not in ("tags", "inputs")}
            ),
            tags=texts({key.removeprefix("tags/"): value for key, value in config.items() if key.startswith("tags/")}),
            metrics=metrics,
            assets={path.relative_to(directory / "files").as_posix(): path.read_bytes() for path in files},
            images=images,
            inputs={
                key.removeprefix("inputs/"): value["context"]
                for key, value in config.items()
                if key.startswith("inputs/")
            },
            status={code: status for status, code in EXIT_CODES.items()}[exit_code],
            histograms=histograms,
        )

    def test_a_run_is_gone_on_with_by_another_process(self, tracker: WandbTracker, run: Run) -> None:
        """W&B itself refuses a second run of this id in the same process, so the first one is killed for real."""
        code = """
import os, signal, sys
from pathlib import Path
from gymtrain_trackers import Metric, Run
from gymtrain_trackers.wandb import WandbTracker
id, root, directory = sys.argv[1:]
run = Run(id, "conformance", "a run", Path(root), Path(directory), 1.0)
tracker = WandbTracker(mode="offline")
tracker.start(run)
tracker.log_metrics([Metric("loss", 0.5, 1, 2.0)])
os.kill(os.getpid(), signal.SIGKILL)
"""
        died = subprocess.run([sys.executable, "-c", code, run.id, str(run.root), str(run.directory)], check=False)
        assert died.returncode == -signal.SIGKILL

        assert not tracker.resume(run, tracker.state())
        tracker.start(run)
        tracker.log_metrics([Metric("loss", 0.5, 1, 2.0), Metric("loss", 0.25, 2, 3.0)])
        tracker.end("FINISHED")

        assert len([*(run.directory / "wandb").glob("offline-run-*")]) == 1
        assert self.read(tracker, run).metrics == {"loss": [(1, 0.5), (2, 0.25)]}


@pytest.mark.slow
class TestComet(TrackerConformance):
    @pytest.fixture
    def tracker(self) -> CometTracker:
        return CometTracker(mode="offline")

    def read(self, tracker: CometTracker, run: Run) -> Stored:
        params, others, metrics, assets, images, histograms = {}, {}, {}, {}, {}, {}
        with zipfile.ZipFile(tracker.info()["path"]) as archive:
            (status,) = json.loads(archive.read("experiment.json"))["tags"]
            for message in map(json.loads, archive.read("messages.json").splitlines()):
                told = message["payload"]
                match message["type"]:
                    case "parameter_msg" if told["param"]["source"] == "manual":
                        params[told["param"]["paramName"]] = told["param"]["paramValue"]
                    case "log_other":
                        others[told["key"]] = told["value"]
                    case "metric_msg" if told["metric"]["metricName"] != "process duration":
                        point = told["metric"]["step"], float(told["metric"]["metricValue"])
                        metrics.setdefault(told["metric"]["metricName"], []).append(point)
                    case "file_upload" if told["upload_type"] == "asset":
                        assets[told["additional_params"]["fileName"]] = archive.read(told["file_path"])
                    case "file_upload" if told["upload_type"] == "visualization":
                        key = told["additional_params"]["figName"], told["additional_params"]["step"]
                        images[key] = decode_png(archive.read(told["file_path"])).shape
                    case "file_upload" if told["upload_type"] == "histogram3d":
                        key = told["additional_params"]["fileName"], told["additional_params"]["step"]
                        bins = json.loads(archive.read(told["file_path"]))["index_values"]
                        histograms[key] = sum(count for _, count in bins)
        inputs = {key.removeprefix("inputs/"): json.loads(others[key]) for key in others if key.startswith("inputs/")}
        contexts = {name: value["context"] for name, value in inputs.items()}
        return Stored(params, others, metrics, assets, images, contexts, status, histograms)


def test_the_suite_fails_a_tracker_that_loses_points(tmp_path):
    class Forgetful(HistoryTracker):
        def log_metrics(self, metrics):
            super().log_metrics(metrics[:1000])

    run = Run.new(tmp_path)
    suite = TestHistory()

    with pytest.raises(AssertionError):
        suite.test_metrics_are_stored_in_order(Forgetful(), run)


def test_images_come_back_from_png_as_they_were():
    from gymtrain_trackers.images import encode_png

    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)

    np.testing.assert_array_equal(decode_png(encode_png(image)), image)


def test_the_page_on_trackers_says_what_each_test_of_the_suite_means():
    page = (Path(__file__).parents[2] / "docs" / "trackers.md").read_text(encoding="utf-8")

    tests = [name for name in vars(TrackerConformance) if name.startswith("test_")]
    assert re.findall(r"^\| `(test_\w+)` \|", page, re.MULTILINE) == tests
