"""Takes every picture in docs/images, of the pages that MLflow and TensorBoard show of the demo: `make screenshots`.

The demo runs anew, in a directory of its own. The pages are opened as the tests in tests/browser open them. A picture
more is one more `yield`.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from browser_pages import HEIGHT, WIDTH, MLflowPages, TensorBoardPages, new_page, opened_browser
from playwright.sync_api import Page
from servers import MLflowServer, TensorBoardServer

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
CURVES = "^(train|val)/"  # the metrics that people look at first
EXPERIMENT = "1"  # of the demo: a new store counts from 1
TRIES, PAUSE = 60, 500  # how often a page is looked at until it stands still, and the milliseconds in between


def mlflow_pictures(pages: MLflowPages, run_id: str) -> Iterator[str]:
    """Open one page after the other; yield the name of its picture."""
    pages.runs()
    pages.page.set_viewport_size({"width": WIDTH, "height": 2 * HEIGHT})  # the params are below the plot
    pages.compare()
    pages.show_diff_only("Parameters")
    yield "mlflow-compare"

    pages.page.set_viewport_size({"width": WIDTH, "height": 1150})  # two rows of charts
    pages.charts(CURVES)
    pages.drawn(charts=3, curves=2, points=1)
    yield "mlflow-charts"

    pages.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    pages.run(run_id)
    yield "mlflow-run"


def tensorboard_pictures(pages: TensorBoardPages) -> Iterator[str]:
    """Open one page after the other; yield the name of its picture."""
    pages.page.set_viewport_size({"width": WIDTH, "height": 650})  # one row of curves
    pages.time_series(CURVES)
    yield "tensorboard-scalars"

    pages.hparams()
    yield "tensorboard-hparams"


def take(page: Page, name: str) -> None:
    """Write the picture of a page as soon as it stands still."""
    before = page.screenshot()
    for _ in range(TRIES):
        page.wait_for_timeout(PAUSE)
        picture = page.screenshot()
        if picture == before:
            break
        before = picture
    (IMAGES / f"{name}.png").write_bytes(picture)


def main() -> None:
    """Take all pictures."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gymtrain-")))
        # A copy, or the page of the run would show a commit of this repository.
        demo = shutil.copy(ROOT / "examples" / "digits.py", directory)
        subprocess.run([sys.executable, demo], cwd=directory, check=True)
        mlflow = MLflowServer(directory, directory / "runs" / "mlflow.db")
        stack.callback(mlflow.stop)
        tensorboard = TensorBoardServer(directory / "runs" / "tensorboard", directory)
        stack.callback(tensorboard.stop)
        tensorboard.runs(2)
        run_id = mlflow.ask("/api/2.0/mlflow/runs/search", {"experiment_ids": [EXPERIMENT]})["runs"][0]["info"][
            "run_id"
        ]

        page = new_page(stack.enter_context(opened_browser()))
        for name in mlflow_pictures(MLflowPages(page, mlflow.url, EXPERIMENT), run_id):
            take(page, name)
        for name in tensorboard_pictures(TensorBoardPages(page, tensorboard.url)):
            take(page, name)


if __name__ == "__main__":
    main()
