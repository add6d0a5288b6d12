# ruff: noqa: D102  (what the methods do is said in Tracker)
from __future__ import annotations

import io
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ArgumentError, TemporaryError, TrackerError
from .files import is_within
from .images import encode_png
from .mlflow_keys import shortened
from .process_state import kept
from .run import JSON, DatasetInput, Metric, Run, Status
from .strict_json import as_text
from .tracker import Tracker, Wanted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KEY_CHARACTERS, VALUE_CHARACTERS = 100, 1000  # Comet cuts what is longer, and two keys may become one
NOTHING_BY_ITSELF = dict.fromkeys(
    (
        *("log_code", "log_git_metadata", "log_git_patch", "log_graph", "parse_args", "auto_log_co2"),
        *("log_env_details", "log_env_cpu", "log_env_gpu", "log_env_host", "log_env_network", "log_env_disk"),
        *("auto_param_logging", "auto_metric_logging", "auto_output_logging"),
    ),
    False,
)


class CometTracker(Tracker):
    """Stores runs in Comet, or in a zip for `comet upload`; nothing but what it is told.

    Params are parameters, tags and data are others (the latter as `inputs/…`), the status is a tag of the experiment,
    whose key is `Run.id`. Points keep their steps, but not their times: Comet has those at which it was told. Keys
    longer than 100 characters and values longer than 1000 end in their SHA-256.

    Offline, a run that is told again from the beginning gets a new zip. Online it is gone on with behind the last call
    that Comet has taken; a call that was cut off may then be there twice.

    Args:
        project: None means the experiment of the run.
        workspace: None means Comet's default.
        mode: `online`, with the API key of `comet login` or `COMET_API_KEY`; `offline`, into `comet/` in the directory
            of the run; None means `online`.
        histograms: Whether to ask for histograms of the parameters and their gradients after each epoch.

    Raises:
        ArgumentError: the mode is another.

    Example:
        >>> CometTracker(mode="off")
        Traceback (most recent call last):
        gymtrain_trackers.errors.ArgumentError: comet mode: got 'off'; expected 'online' or 'offline'
    """

    name = "comet"
    requires = ("comet_ml>=3.49",)

    def __init__(
        self,
        project: str | None = None,
        workspace: str | None = None,
        mode: str | None = None,
        histograms: bool = False,
    ) -> None:
        if mode not in ("online", "offline", None):
            raise ArgumentError(f"comet mode: got {mode!r}; expected 'online' or 'offline'")
        self._project, self._workspace, self._is_online = project, workspace, mode != "offline"
        self.wants = frozenset[Wanted]({"histograms"} if histograms else ())
        self._info: dict[str, JSON] = {}
        self._experiment: Any

    def prepare(self) -> None:
        # Without these, the import patches every framework that is imported later, and errors are sent to Comet.
        quiet = {"COMET_DISABLE_AUTO_LOGGING": "1", "COMET_ERROR_TRACKING_ENABLE": "false"}
        with kept("COMET_", COMET_LOGGING_CONSOLE="WARNING", **quiet):
            import comet_ml  # noqa: F401

    def start(self, run: Run) -> None:
        self.prepare()
        import comet_ml

        if self._is_online:
            self._open_online(run, comet_ml.Experiment, comet_ml.ExistingExperiment)
            return
        directory = run.directory / "comet"
        for told_before in directory.glob(f"{run.id}*.zip"):
            told_before.unlink()
        self._open(run, comet_ml.OfflineExperiment)
        path = directory / f"{run.id}.zip"
        self._info = {"run_id": run.id, "path": str(path), "ui": f"comet upload {shlex.quote(str(path))}"}

    def resume(self, run: Run, state: JSON) -> bool:
        if not self._is_online:
            return False
        self.prepare()
        import comet_ml

        self._open_online(run, comet_ml.ExistingExperiment)
        return True

    def state(self) -> JSON:
        if self._is_online and not self._experiment.flush():
            raise TemporaryError("Comet has not taken what it was told")
        return None

    def arguments(self, run: Run) -> dict[str, JSON]:
        mode = "online" if self._is_online else "offline"
        where: dict[str, JSON] = {"project": self._project, "workspace": self._workspace, "mode": mode}
        return where | {"histograms": bool(self.wants)}

    def stays_beside(self, run: Run) -> bool:
        return not self._is_online and is_within(run.directory / "comet", run.directory)

    def log_params(self, params: Mapping[str, Any]) -> None:
        self._experiment.log_parameters(_texts(params))

    def log_tags(self, tags: Mapping[str, Any]) -> None:
        self._experiment.log_others(_texts(tags))

    def log_metrics(self, metrics: Sequence[Metric]) -> None:
        for metric in metrics:
            self._experiment.log_metric(shortened(metric.key, KEY_CHARACTERS), metric.value, step=metric.step)

    def log_asset(self, path: Path, name: str) -> None:
        for file in [each for each in (path, *path.rglob("*")) if each.is_file()]:
            inside = name if file == path else f"{name}/{file.relative_to(path).as_posix()}"
            self._experiment.log_asset(str(file), file_name=inside, overwrite=True)

    def log_image(self, image: NDArray[np.uint8], name: str, step: int) -> None:
        self._experiment.log_image(io.BytesIO(encode_png(image)), name=name, step=step, overwrite=True)

    def log_histogram(self, name: str, counts: NDArray[np.int64], edges: NDArray[np.float64], step: int) -> None:
        from comet_ml import Histogram

        histogram = Histogram()  # with bins of its own, into which each of ours goes by its middle
        histogram.add((edges[:-1] + edges[1:]) / 2, counts=counts)
        self._experiment.log_histogram_3d(histogram, name=name, step=step)

    def log_inputs(self, inputs: Sequence[DatasetInput]) -> None:
        self.log_tags({f"inputs/{each.name}": asdict(each) for each in inputs})

    def end(self, status: Status) -> None:
        self._experiment.add_tag(status)
        self._experiment.end()

    def info(self) -> dict[str, JSON]:
        return dict(self._info)

    def _open_online(self, run: Run, *kinds: Any) -> None:
        import comet_ml

        if comet_ml.get_api_key(None, comet_ml.get_config()) is None:
            raise TrackerError("Comet has no API key: call `comet login`, set COMET_API_KEY or give mode='offline'")
        for kind in kinds:
            self._open(run, kind)
            if self._experiment.alive:
                url = self._experiment.url
                self._info = {"run_id": run.id, "url": url, "ui": f"python -m webbrowser {shlex.quote(url)}"}
                return
        raise TemporaryError("Comet did not open the experiment; its own log says why")

    def _open(self, run: Run, kind: Any) -> None:
        from comet_ml.config import get_global_experiment, set_global_experiment

        current = get_global_experiment()
        self._experiment = kind(
            experiment_key=run.id,
            project_name=self._project or run.experiment,
            workspace=self._workspace,
            offline_directory=os.fspath(run.directory / "comet"),
            display_summary_level=0,
            **NOTHING_BY_ITSELF,
        )
        set_global_experiment(current)  # that of the caller, if there is one, stays the current one
        self._experiment.set_name(run.name)


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {
        shortened(key, KEY_CHARACTERS): shortened(as_text(value), VALUE_CHARACTERS) for key, value in values.items()
    }
