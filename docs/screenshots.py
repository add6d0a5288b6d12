"""Takes the pictures in docs/images from the real MLflow and TensorBoard pages.

    pip install playwright && apt-get install chromium
    make demo && python docs/screenshots.py

Both servers run on the loopback interface while the pictures are taken.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parent / "images"
WIDTH, HEIGHT = 1400, 900  # of the pages, in pixels
# MLflow opens an assistant over a quarter of the page the first time.
NO_ASSISTANT = """
localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');
"""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(command: list[str], health: str) -> Iterator[None]:
    """Run a server until the block is left, beginning when it answers."""
    quiet = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with subprocess.Popen(command, env=quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(120):
                with contextlib.suppress(OSError), urllib.request.urlopen(health, timeout=2):
                    break
                time.sleep(0.5)
            else:
                raise TimeoutError(f"{' '.join(command)} does not answer on {health}")
            yield
        finally:
            server.terminate()


def mlflow_pages(page: Page, address: str, experiment: str) -> None:
    """Take the list of runs, the comparison of all of them, and their curves."""
    page.goto(f"{address}/#/experiments/{experiment}/runs?workflowType=machine_learning")
    page.get_by_role("checkbox", name="Select all runs").wait_for()
    page.screenshot(path=IMAGES / "mlflow-runs.png")
    page.get_by_role("checkbox", name="Select all runs").check(force=True)
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_text("Comparing 2 Runs").wait_for()
    page.set_viewport_size({"width": WIDTH, "height": 2 * HEIGHT})  # the params are below the plot
    page.wait_for_timeout(3000)
    page.screenshot(path=IMAGES / "mlflow-compare.png")
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    page.goto(
        f"{address}/#/experiments/{experiment}/runs?workflowType=machine_learning&compareRunsMode=CHART",
    )
    page.locator(".js-plotly-plot").first.wait_for()
    page.wait_for_timeout(3000)
    page.screenshot(path=IMAGES / "mlflow-charts.png")


def tensorboard_pages(page: Page, address: str) -> None:
    """Take the curves and the table of hyper-parameters."""
    page.goto(f"{address}/#timeseries")
    page.locator("scalar-card").first.wait_for()
    page.wait_for_timeout(3000)
    page.screenshot(path=IMAGES / "tensorboard-scalars.png")
    page.goto(f"{address}/#hparams")
    page.reload()
    page.wait_for_timeout(5000)
    page.screenshot(path=IMAGES / "tensorboard-hparams.png")


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("runs"), help="the folder of the runs, with two of them")
    parser.add_argument("--experiment", default="1", help="the id of the experiment in MLflow")
    options = parser.parse_args()
    root = options.root.absolute()
    IMAGES.mkdir(exist_ok=True)
    mlflow, tensorboard = free_port(), free_port()
    binaries = Path(sys.executable).parent
    commands = {
        f"http://127.0.0.1:{mlflow}/health": [
            *(str(binaries / "mlflow"), "ui", "--backend-store-uri", f"sqlite:///{root}/mlflow.db"),
            *("--port", str(mlflow)),
        ],
        f"http://127.0.0.1:{tensorboard}/": [
            *(str(binaries / "tensorboard"), "--logdir", str(root / "tensorboard"), "--port", str(tensorboard)),
        ],
    }
    with contextlib.ExitStack() as stack:
        for health, command in commands.items():
            stack.enter_context(serving(command, health))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.add_init_script(NO_ASSISTANT)
        mlflow_pages(page, f"http://127.0.0.1:{mlflow}", options.experiment)
        tensorboard_pages(page, f"http://127.0.0.1:{tensorboard}")
        browser.close()


if __name__ == "__main__":
    main()
