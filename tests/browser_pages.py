"""MLflow's and TensorBoard's pages in a real browser, opened as a person opens them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

VARIABLE = "GYMTRAIN_BROWSER"
NAMES = "chromium", "chromium-browser", "google-chrome"
MISSING = f"no Chromium on this machine: `apt-get install chromium`, or name one in the environment variable {VARIABLE}"
OPTIONS = [
    "--no-sandbox",  # which root may not use
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    # What the browser would ask of the world on its own account.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDTH, HEIGHT = 1400, 900  # of a page, in pixels
TIMEOUT = 60_000  # milliseconds; machines of continuous integration are slow

# MLflow opens an assistant over a quarter of the page the first time, and takes everybody for a maker of agents.
SETTLED = """
localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');
localStorage.setItem('mlflow.workflowType_v1', '"machine_learning"');
"""


def find_browser() -> str | None:
    """Return the path of Chromium, None where there is none.

    Raises:
        FileNotFoundError: the one that the environment names is not there.
    """
    if named := os.environ.get(VARIABLE):
        if found := shutil.which(named):
            return found
        raise FileNotFoundError(f"{VARIABLE}: {named!r} is no program of this machine; `apt-get install chromium`")
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def opened_browser() -> Iterator[Browser]:
    """Run Chromium, as nobody has used it yet, until the block is left."""
    from playwright.sync_api import sync_playwright

    path = find_browser()
    assert path is not None, MISSING
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=OPTIONS, timeout=TIMEOUT)
        yield browser
        browser.close()


def new_page(browser: Browser) -> Page:
    """Return a page of somebody who was here never before, but knows the way."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    page.set_default_timeout(TIMEOUT)
    page.add_init_script(SETTLED)
    return page


class MLflowPages:
    """The pages of MLflow on one experiment.

    Args:
        page: Where they are shown.
        address: Of the server.
        experiment: The id of the experiment.
    """

    def __init__(self, page: Page, address: str, experiment: str) -> None:
        self.page = page
        self._runs = f"{address}/#/experiments/{experiment}/runs"

    def runs(self) -> None:
        """Open the list of the runs."""
        self.page.goto(self._runs)
        self.page.get_by_role("checkbox", name="Select all runs").wait_for()

    def compare(self) -> None:
        """In the list, tick all runs and press Compare."""
        self.page.get_by_role("checkbox", name="Select all runs").check(force=True)
        self.page.get_by_role("button", name="Compare", exact=True).click()
        self.page.get_by_text(re.compile(r"^Comparing \d+ Runs")).wait_for()

    def show_diff_only(self, section: str) -> None:
        """In the comparison, leave those rows of `Parameters`, `Metrics` or `Tags` in which the runs differ."""
        self.page.get_by_role("switch", name=f"{section} - Show diff only").click()

    def charts(self, pattern: str) -> None:
        """Open the curves of all runs over each other, of the metrics whose names match the regular expression."""
        self.page.goto(f"{self._runs}?compareRunsMode=CHART")
        self.page.get_by_placeholder("Search metric charts").fill(pattern)

    def run(self, run_id: str, tab: str = "") -> None:
        """Open a run: its overview, or the tab `model-metrics`, `system-metrics` or `artifacts`."""
        self.page.goto(f"{self._runs}/{run_id}/{tab}".rstrip("/"))
        self.page.get_by_role("tab", selected=True).wait_for()

    def preview(self, *path: str) -> None:
        """Among the artifacts of a run, open one folder after the other and then a file, by parts of their names."""
        for part in path:
            self.page.get_by_text(part).last.click()

    def drawn(self, charts: int, curves: int, points: int) -> list[dict[str, tuple[list[float], list[float]]]]:
        """Return what the charts of the page show, by the names of the curves: where their points are.

        Args:
            charts: How many there must be, before anything is returned.
            curves: How many names of curves there must be in each.
            points: How many points at least there must be in each curve.
        """
        handle = self.page.wait_for_function(DRAWN, arg=[charts, curves, points])
        found: list[dict[str, tuple[list[float], list[float]]]] = handle.json_value()
        return found


# Plotly hangs its data on the element; MLflow draws a chart before it has all of them.
DRAWN = """
([charts, curves, points]) => {
    const plots = [...document.querySelectorAll('.js-plotly-plot')];
    const drawn = plots.map(({data = []}) =>
        Object.fromEntries(data.map(({name, x = [], y = []}) => [name, [[...x], [...y]]])));
    const complete = drawn.every(chart => Object.keys(chart).length == curves
        && Object.values(chart).every(([x]) => x.length >= points));
    return drawn.length == charts && complete ? drawn : null;
}
"""


class TensorBoardPages:
    """The pages of TensorBoard.

    Args:
        page: Where they are shown.
        address: Of the server.
    """

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self._address = address

    def time_series(self, pattern: str) -> None:
        """Open the curves of the metrics whose names match the regular expression, without the panel beside them."""
        self.page.goto(f"{self._address}/#timeseries")
        self.page.reload()  # or a page that was open already stays what it was
        self.page.get_by_role("combobox", name="Filter tags (regex)").fill(pattern)
        self.page.get_by_role("button", name="Toggle settings side pane").click()
        self.page.locator("scalar-card").first.wait_for()

    def rows(self, metric: str) -> Locator:
        """Return the rows under the curves of a metric, one for each run: name, smoothed, value, step, time."""
        return self.page.locator("scalar-card", has_text=metric).locator("tb-data-table-content-row")

    def hparams(self) -> Locator:
        """Open the table of params and metrics; return its cells, header and rows one after the other."""
        self.page.goto(f"{self._address}/#hparams")
        self.page.reload()
        self.page.get_by_text("Table View").wait_for()
        return self.page.locator("vaadin-grid-cell-content")
