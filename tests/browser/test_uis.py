"""What a person sees of two runs in MLflow and TensorBoard."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

import pytest
from browser_pages import MISSING, MLflowPages, TensorBoardPages, find_browser, new_page, opened_browser
from playwright.sync_api import expect
from servers import MLflowServer, TensorBoardServer

from gymtrain import Trainer

pytestmark = pytest.mark.slow
expect.set_options(timeout=60_000)

EPOCHS, STEPS_PER_EPOCH = 5, 3
RATES = {"careful": 0.01, "bold": 0.1}

# MLflow asks who is logged in, and takes the answer that this server has no users.
NO_USERS = "/users/current"


@pytest.fixture(scope="module")
def browser():
    if find_browser() is None:
        pytest.skip(MISSING)
    with opened_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def root(browser, tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def trainer(root, name, lr):
    return Trainer(
        dataset={
            "dataset": {"type": "iris"},
            "samples": {"train": 0.6, "val": 0.2, "test": 0.2},
            "preprocessors": [{"type": "standard_scaler"}],
        },
        model={
            "model": {"type": "mlp", "hidden": [8]},
            "training": {"epochs": EPOCHS, "batch_size": 32, "optimizer": {"type": "SGD", "lr": lr}},
        },
        tracking={
            "root": str(root),
            "experiment": "rates",
            "run_name": name,
            "tags": {"team": "flowers"},
            "log_every_n_steps": 1,
            "trackers": [{"type": "mlflow", "tracking_uri": f"sqlite:///{root}/mlflow.db"}, {"type": "tensorboard"}],
        },
    )


@pytest.fixture(scope="module")
def results(root):
    """What two trainings returned that differ in their learning rate, by the names of the runs."""
    return {name: trainer(root, name, lr).train() for name, lr in RATES.items()}


@pytest.fixture(scope="module")
def mlflow_server(results, tmp_path_factory):
    run = results["bold"]["run"]
    server = MLflowServer(tmp_path_factory.mktemp("server"), run["tracking_uri"].removeprefix("sqlite:///"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def tensorboard_server(root, results, tmp_path_factory):
    server = TensorBoardServer(root / "tensorboard" / "rates", tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture
def page(browser):
    """A page that must be content with this machine, and complain of nothing."""
    page, requests, complaints = new_page(browser), [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message) if message.type == "error" else None)

    yield page

    page.close()
    assert {urlsplit(url).hostname for url in requests if url.startswith("http")} <= {"127.0.0.1"}
    ours = [each for each in complaints if isinstance(each, str) or NO_USERS not in each.location["url"]]
    texts = [each if isinstance(each, str) else each.text for each in ours]
    assert [text for text in texts if "ResizeObserver loop" not in text] == []


@pytest.fixture
def mlflow(page, mlflow_server, results):
    return MLflowPages(page, mlflow_server.url, results["bold"]["run"]["experiment_id"])


@pytest.fixture
def tensorboard(page, tensorboard_server):
    tensorboard_server.runs(len(RATES))
    return TensorBoardPages(page, tensorboard_server.url)


def test_the_comparison_shows_the_one_param_that_differs_and_every_point_of_a_metric(mlflow):
    mlflow.runs()
    mlflow.compare()
    params = mlflow.page.get_by_role("table").filter(has_text="training/optimizer/lr")
    expect(params.get_by_role("row")).not_to_have_count(1)

    mlflow.show_diff_only("Parameters")

    expect(params.get_by_role("row")).to_have_count(1)
    shown = params.get_by_role("cell").all_inner_texts()
    assert sorted(float(each) for each in shown) == sorted(RATES.values())

    mlflow.page.get_by_role("link", name="batch/loss").click()

    (curves,) = mlflow.drawn(charts=1, curves=2, points=EPOCHS * STEPS_PER_EPOCH)
    steps = [float(step) for step in range(1, EPOCHS * STEPS_PER_EPOCH + 1)]
    assert {name: x for name, (x, _) in curves.items()} == dict.fromkeys(RATES, steps)


def test_the_charts_hold_the_curves_of_both_runs_over_each_other(mlflow, results):
    mlflow.charts("^train/loss$")

    (curves,) = mlflow.drawn(charts=1, curves=2, points=EPOCHS)

    for name, result in results.items():
        x, y = curves[name]
        assert x == list(range(1, EPOCHS + 1))
        assert y == pytest.approx(result["metrics"]["train/loss"])


def test_the_page_of_a_run_says_what_it_was_and_how_it_ended(mlflow, mlflow_server, results):
    run, metrics = results["bold"]["run"], results["bold"]["metrics"]
    stored = mlflow_server.ask(f"/api/2.0/mlflow/runs/get?run_id={run['run_id']}")["run"]
    digests = {each["tags"][0]["value"]: each["dataset"]["digest"] for each in stored["inputs"]["dataset_inputs"]}

    mlflow.run(run["run_id"])

    main = mlflow.page.get_by_role("main")
    for text in ("Finished", run["run_id"], "mlp on iris"):
        expect(main).to_contain_text(text)
    for part, rows in (("train", 90), ("val", 30), ("test", 30)):
        expect(main.get_by_role("row", name=f"{part} {rows} {results['bold']['data'][part]['sha256']}")).to_be_visible()
    expect(main.get_by_role("row", name="test/accuracy").last).to_contain_text(str(metrics["test/accuracy"]))
    expect(main.get_by_role("row", name="training/optimizer/lr")).to_contain_text(str(RATES["bold"]))
    expect(main).to_contain_text("team: flowers")
    expect(main).to_contain_text("gymtrain.weights: best")

    main.get_by_text(f"iris ({digests['training']})").click()

    details = mlflow.page.get_by_role("dialog")
    assert sorted(digests) == ["test", "training", "validation"]
    for digest in digests.values():
        expect(details).to_contain_text(digest)
    expect(details).to_contain_text("rows: 90")


def test_the_tab_of_system_metrics_has_a_chart_of_each(mlflow, results):
    mlflow.run(results["bold"]["run"]["run_id"], "system-metrics")

    drawn = mlflow.drawn(charts=5, curves=1, points=2)

    assert {name for chart in drawn for name in chart} == {"bold"}


def test_the_tab_of_artifacts_shows_the_bundle_and_a_figure_by_its_name(page, mlflow_server, results):
    run = results["bold"]["run"]
    mlflow = MLflowPages(page, mlflow_server.url, run["experiment_id"])

    mlflow.run(run["run_id"], "artifacts")
    for name in ("figures", "model", "spec.json", "hardware.json", "requirements.txt", "history.csv"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    mlflow.preview("figures", "confusion_matrix.png")

    picture = page.get_by_role("img", name="confusion_matrix")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100


def test_tensorboard_has_every_point_of_both_runs(tensorboard_server, results):
    runs = tensorboard_server.runs(len(RATES))

    for name, result in results.items():
        (run,) = (run for run in runs if run.startswith(f"{name}-"))
        for metric in ("train/loss", "val/loss", "val/accuracy"):
            points = tensorboard_server.ask(f"/data/plugin/scalars/scalars?run={quote(run)}&tag={quote(metric)}")
            assert [step for _, step, _ in points] == list(range(1, EPOCHS + 1))
            assert [value for _, _, value in points] == pytest.approx(result["metrics"][metric])
        steps = tensorboard_server.ask(f"/data/plugin/scalars/scalars?run={quote(run)}&tag=batch/loss")
        assert len(steps) == EPOCHS * STEPS_PER_EPOCH


def test_the_curves_of_tensorboard_end_where_the_runs_do(tensorboard, results):
    tensorboard.time_series("^(train|val)/")

    rows = tensorboard.rows("train/loss")
    expect(rows).to_have_count(2)
    for name, result in results.items():
        row = rows.filter(has_text=f"{name}-")
        expect(row).to_have_count(1)
        _, _, value, step, *_ = (cell for cell in row.inner_text().split("\n") if cell.strip())
        assert float(value) == pytest.approx(result["metrics"]["train/loss"][-1], abs=1e-3)
        assert int(step) == EPOCHS


def test_tensorboard_compares_the_params_and_metrics_of_both_runs(tensorboard, results):
    cells = tensorboard.hparams()

    for name, result in results.items():
        expect(cells.filter(has_text=f"{name}-")).to_be_visible()
        shown = cells.all_inner_texts()
        (beginning,) = (place for place, text in enumerate(shown) if text.startswith(f"{name}-"))
        _, _, lr, *others = shown[beginning : beginning + 13]
        numbers = [float(text) for text in others if re.fullmatch(r"\d+\.\d+", text)]
        assert shown[shown.index("Show Metrics") + 1] == "training/optimizer/lr"  # what differs comes first
        assert float(lr) == RATES[name]
        assert pytest.approx(result["metrics"]["train/loss"][-1], rel=1e-4) in numbers
