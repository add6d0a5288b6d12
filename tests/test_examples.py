from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from image_archives import jpeg
from web_server import WebServer, content

import gymtrain
from gymtrain_trackers import Run
from gymtrain_trackers.conformance import Stored, TrackerConformance

EXAMPLES = Path(__file__).parents[1] / "examples"
COMMAND = Path(sys.executable).with_name("gymtrain")


def run(*command, cwd: Path) -> str:
    """Run a program as a user does, and return what it prints."""
    done = subprocess.run([str(each) for each in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr
    return done.stdout


def module_of(name: str):
    reference = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(reference)
    reference.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_demo_trains_two_models_and_predicts_in_another_process_and_does_so_again(tmp_path):
    for _ in range(2):
        printed = run(sys.executable, EXAMPLES / "digits.py", "--epochs", "2", cwd=tmp_path)

        assert "1797 of its 1797 predictions are the ones made here" in printed
        assert f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/runs/mlflow.db" in printed
        assert len(re.findall(r"[0-9a-f]{32}", printed)) == 2

    assert gymtrain.inspect(tmp_path / "digits.zip")["results"]["status"] == "FINISHED"
    assert len(list((tmp_path / "runs" / "digits").iterdir())) == 4
    assert len(list((tmp_path / "runs" / "tensorboard" / "digits").iterdir())) == 4


@pytest.mark.slow
def test_the_example_of_a_frame_predicts_the_same_on_the_command_line(tmp_path):
    printed = run(sys.executable, EXAMPLES / "tabular.py", cwd=tmp_path)
    command = re.search(r"^  gymtrain (.*)$", printed, re.MULTILINE)[1]

    lines = list(csv.DictReader(run(COMMAND, *command.split(), cwd=tmp_path).splitlines()))

    assert len(lines) == 8
    for line in lines:
        row = re.search(rf"^{line['id']} .*$", printed, re.MULTILINE)[0].split()
        assert row[3] == line["prediction"]


@pytest.mark.slow
def test_the_example_of_a_model_is_loaded_by_a_process_that_imports_it(tmp_path):
    run(sys.executable, EXAMPLES / "custom_model.py", cwd=tmp_path)
    program = (
        f"import sys; sys.path.append({str(EXAMPLES)!r})\n"
        "import custom_model\n"
        "from gymtrain import Trainer\n"
        "print(Trainer.load('residual.zip').predict_proba([[10.0] * 30]).shape)"
    )

    assert run(sys.executable, "-c", program, cwd=tmp_path) == "(1, 2)\n"


@pytest.mark.slow
def test_the_example_of_a_tracker_prints_the_metrics_of_its_run(tmp_path):
    printed = run(sys.executable, EXAMPLES / "custom_tracker.py", cwd=tmp_path)

    lines = printed.splitlines()
    assert [line.split(",")[1] for line in lines if line.startswith("val/loss,")] == ["1", "2", "3"]
    assert "status,,FINISHED" in lines


@pytest.mark.slow
def test_the_example_of_a_plain_script_is_tracked_in_every_ending(tmp_path):
    printed = run(sys.executable, EXAMPLES / "plain_script.py", "--epochs", "3", cwd=tmp_path)
    failed = subprocess.run(
        [sys.executable, EXAMPLES / "plain_script.py", "--lr", "1e6"], cwd=tmp_path, capture_output=True, text=True
    )

    assert printed.splitlines()[0].startswith(f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/runs/mlflow.db")
    assert failed.stderr.splitlines()[-1].endswith("give a smaller --lr than 1000000.0")
    endings = [
        (path.parent.name.rpartition("-")[0], json.loads(path.read_text().splitlines()[-1])["status"])
        for path in sorted((tmp_path / "runs" / "lines").glob("*/metrics.jsonl"))
    ]
    assert endings == [("lr 0.1", "FINISHED"), ("lr 1000000.0", "FAILED")]


@pytest.mark.slow
def test_the_example_of_a_spec_is_trained_by_the_command_line(tmp_path):
    spec = yaml.safe_load((EXAMPLES / "experiment.yaml").read_text(encoding="utf-8"))
    spec["model"]["training"]["epochs"] = 2
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")

    run(COMMAND, "validate", EXAMPLES / "experiment.yaml", cwd=tmp_path)
    run(COMMAND, "train", "short.yaml", "--save", "digits.zip", cwd=tmp_path)

    assert len(gymtrain.inspect(tmp_path / "digits.zip")["results"]["metrics"]["train/loss"]) == 2
    assert (tmp_path / "runs" / "mlflow.db").is_file()


def test_the_example_of_a_spec_is_the_one_of_the_readme():
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"^```yaml\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)[1]
    example = (EXAMPLES / "experiment.yaml").read_text(encoding="utf-8")

    specs = [gymtrain.Trainer.from_dict(yaml.safe_load(text)).to_dict() for text in (shown, example)]

    assert specs[0] == specs[1]


class TestTheTrackerOfTheExample(TrackerConformance):
    @pytest.fixture
    def tracker(self, monkeypatch):
        # The module registers its tracker, which is not to be known to other tests.
        monkeypatch.setattr("gymtrain.registry.names._registered", {})
        return module_of("custom_tracker").CsvTracker()

    def read(self, tracker, run: Run) -> Stored:
        with (run.directory / "metrics.csv").open(encoding="utf-8", newline="") as file:
            *points, last = list(csv.reader(file))[1:]
        metrics: dict[str, list[tuple[int, float]]] = {}
        for key, step, value in points:
            metrics.setdefault(key, []).append((int(step), float(value)))
        return Stored(metrics=metrics, status=last[2])


@pytest.mark.slow
def test_the_example_of_dogs_and_cats_learns_from_a_mirror_and_names_photos(image_mirror, tmp_path):
    server = WebServer()
    for file in image_mirror.iterdir():
        if file.is_file():
            server.answers[f"/{file.name}"] = content(file.read_bytes())
    photos = {}
    for rings in (True, False):
        photos[rings] = tmp_path / f"photo {rings}.jpg"
        photos[rings].write_bytes(jpeg(rings, np.random.default_rng(7)))
    environment = {**os.environ, "GYMTRAIN_MIRROR": server.url, "GYMTRAIN_DATA": str(tmp_path / "data")}

    with server.running():
        command = [sys.executable, str(EXAMPLES / "dogs_vs_cats.py"), *map(str, photos.values())]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)

    assert done.returncode == 0, done.stderr
    assert float(re.search(r"not seen: (\d\.\d+)", done.stdout)[1]) >= 0.9
    assert re.search(r"photo True.jpg: cat \(\d+%\)\n.*photo False.jpg: dog \(", done.stdout)
    assert "2 of 302 files are empty or no JPEG" in done.stderr
    kept = gymtrain.inspect(tmp_path / "saved_trainer.zip")
    assert kept["results"]["data"]["train"]["rows"] == 240
