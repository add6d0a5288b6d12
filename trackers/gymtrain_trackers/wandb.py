# ruff: noqa: D102  (what the methods do is said in Tracker)
from __future__ import annotations

import glob
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ArgumentError, TrackerError
from .files import is_within
from .process_state import kept
from .run import JSON, DatasetInput, Metric, Run, Status, path_part
from .strict_json import plain
from .tracker import Tracker, Wanted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

START_SECONDS, FINISH_SECONDS = 30, 60
EXIT_CODES: dict[Status, int] = {"FINISHED": 0, "FAILED": 1, "KILLED": 255}
AXES = {"batch": "batch/step", "system": "system/step"}
RESERVED = {"epoch", *AXES.values(), "_step", "_runtime", "_timestamp", "_wandb"}


class WandbTracker(Tracker):
    """Stores runs in Weights & Biases, or in files for `wandb sync`; nothing but what it is told, and asks nobody.

    Params are the config; tags and data are in it too, under `tags/` and `inputs/`. W&B has one step per run, which may
    only grow, so each point is a row of its own with an axis beside it: `batch/step` for `batch/…`, `system/step` for
    `system/…`, `epoch` for all others. The status is the exit code: 0, 1, or 255 for KILLED.

    The id of the W&B run is `Run.id`. Rows are numbered as they are told, so a run that is told again from the
    beginning gets online only the rows it lacks; offline, its files are written anew.

    Args:
        project: None means the experiment of the run.
        entity: The user or team; None means W&B's default.
        mode: `online`, with the API key of `wandb login` or `WANDB_API_KEY`; `offline`, into `wandb/` in the directory
            of the run; None means the environment variable `WANDB_MODE`, and without it `online`.
        histograms: Whether to ask for histograms of the parameters and their gradients after each epoch.

    Raises:
        ArgumentError: the mode is another.

    Example:
        >>> WandbTracker(mode="off")
        Traceback (most recent call last):
        gymtrain_trackers.errors.ArgumentError: wandb mode: got 'off'; expected 'online' or 'offline'
    """

    name = "wandb"
    requires = ("wandb>=0.31",)

    def __init__(
        self,
        project: str | None = None,
        entity: str | None = None,
        mode: str | None = None,
        histograms: bool = False,
    ) -> None:
        self._project, self._entity = project, entity
        self._mode: Any = mode or os.environ.get("WANDB_MODE") or "online"
        if self._mode not in ("online", "offline"):
            raise ArgumentError(f"wandb mode: got {self._mode!r}; expected 'online' or 'offline'")
        self.wants = frozenset[Wanted]({"histograms"} if histograms else ())
        self._rows = 0
        self._defined: set[str] = set()
        self._info: dict[str, JSON] = {}
        self._run: Any

    def prepare(self) -> None:
        # It wraps the `write` of stdout and stderr for good: to no effect, unless another run asks for the console.
        with kept("WANDB_"):
            import wandb  # noqa: F401

    def start(self, run: Run) -> None:
        for told_before in (run.directory / "wandb").glob(f"*run-*-{run.id}"):
            shutil.rmtree(told_before)
        # Its helper process, which the first run starts, would write logs into the home directory and report errors.
        logs = str(run.directory / "wandb")
        with kept("WANDB_", WANDB_ERROR_REPORTING="false", WANDB_CACHE_DIR=logs):
            self._run = self._opened(run)
        self._rows, self._defined = 0, set()
        directory = Path(self._run.dir).parent
        show = f"wandb sync {shlex.quote(str(directory))}"
        if self._mode == "online":
            show = f"python -m webbrowser {shlex.quote(self._run.url)}"
        self._info = {"run_id": run.id, "project": self._run.project, "directory": str(directory), "ui": show}

    def arguments(self, run: Run) -> dict[str, JSON]:
        return {"project": self._project, "entity": self._entity, "mode": self._mode, "histograms": bool(self.wants)}

    def stays_beside(self, run: Run) -> bool:
        return self._mode == "offline" and is_within(run.directory / "wandb", run.directory)

    def is_temporary(self, error: Exception) -> bool:
        from wandb.errors import AuthenticationError, CommError

        if isinstance(error, CommError):
            return not isinstance(error, AuthenticationError)
        return super().is_temporary(error)

    def log_params(self, params: Mapping[str, Any]) -> None:
        self._run.config.update(plain(params), allow_val_change=True)

    def log_tags(self, tags: Mapping[str, Any]) -> None:
        self.log_params({f"tags/{key}": value for key, value in tags.items()})

    def log_metrics(self, metrics: Sequence[Metric]) -> None:
        # What was logged at once is a row, also when it is told again in other batches.
        rows = groupby(metrics, lambda metric: (_axis(metric.key), metric.step, metric.timestamp))
        for (axis, step, timestamp), points in rows:
            self._log(axis, step, timestamp, {metric.key: metric.value for metric in points})

    def log_asset(self, path: Path, name: str) -> None:
        target = Path(self._run.dir) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(path, target)
        files = [each for each in (target, *target.rglob("*")) if each.is_file()]
        for file in files:
            self._run.save(glob.escape(str(file)), base_path=self._run.dir, policy="now")

    def log_image(self, image: NDArray[np.uint8], name: str, step: int) -> None:
        import wandb

        self._log(_axis(name), step, self.now, {name: wandb.Image(image)})

    def log_histogram(self, name: str, counts: NDArray[np.int64], edges: NDArray[np.float64], step: int) -> None:
        import numpy as np
        import wandb

        width = -(-len(counts) // wandb.Histogram.MAX_LENGTH)  # bins that become one, since it takes no more
        bins = np.add.reduceat(counts, range(0, len(counts), width)), np.append(edges[:-1:width], edges[-1])
        self._log(_axis(name), step, self.now, {name: wandb.Histogram(np_histogram=bins)})

    def log_inputs(self, inputs: Sequence[DatasetInput]) -> None:
        self.log_params({f"inputs/{each.name}": asdict(each) for each in inputs})

    def end(self, status: Status) -> None:
        try:
            self._run.finish(exit_code=EXIT_CODES[status])
        except TimeoutError as error:  # the run is closed all the same, so that trying again cannot help
            raise TrackerError(f"W&B has not taken everything within {FINISH_SECONDS} s") from error

    def info(self) -> dict[str, JSON]:
        return dict(self._info)

    def _opened(self, run: Run) -> Any:
        import wandb
        from wandb.sdk.lib import wbauth

        if self._mode == "online":
            server = wandb.setup().settings.base_url
            if wbauth.authenticate_session(host=server, source="gymtrain", prompt=False) is None:
                raise TrackerError("W&B has no API key: call `wandb login`, set WANDB_API_KEY or give mode='offline'")
        settings = wandb.Settings(
            console="off",
            silent=True,
            symlink=False,
            save_code=False,
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            label_disable=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_disable_stats=True,
            x_save_requirements=False,
            init_timeout=START_SECONDS,
            finish_timeout=FINISH_SECONDS if self._mode == "online" else 0,
            finish_timeout_raises=True,
        )
        return wandb.init(
            project=self._project or path_part(run.experiment),
            entity=self._entity,
            name=run.name,
            id=run.id,
            dir=str(run.directory),
            mode=self._mode,
            resume="allow" if self._mode == "online" else None,
            reinit="create_new",  # the run of the caller, if there is one, stays the current one
            settings=settings,
        )

    def _log(self, axis: str, step: int, timestamp: float, values: Mapping[str, Any]) -> None:
        row, self._rows = self._rows, self._rows + 1
        if row < self._run.starting_step:  # it was told before
            return
        named = {f"{key}_" if key in RESERVED else key: value for key, value in values.items()}
        for key in named.keys() - self._defined:
            if "*" not in key:  # which define_metric takes for a pattern
                self._run.define_metric(key, step_metric=axis)
        self._defined |= named.keys()
        time = {"_timestamp": timestamp} if timestamp else {}
        self._run.log({**named, axis: step, **time}, step=row)


def _axis(key: str) -> str:
    return AXES.get(key.partition("/")[0], "epoch")
