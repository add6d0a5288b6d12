"""What `results.json` of a bundle may hold, as far as anything is made of it: the file may come from anybody."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from gymtrain.trainer.strict_file import Strict, checked, fault

Number = float | None  # strict floats take integers too
Count = Annotated[int, Field(ge=0)]


class _Best(Strict):
    metric: str
    epoch: Count
    value: Number


class _Part(Strict):
    rows: Count
    sha256: str


class _BadSamples(Strict):
    count: Count
    first: list[str]


class _Cpu(Strict):
    brand: str | None


class _Gpu(Strict):
    name: str | None


class _Hardware(Strict):
    cpu: _Cpu
    gpu: list[_Gpu]
    platform: str | None
    python: str
    libraries: dict[str, str]


class _Results(Strict):
    """All may be missing: a checkpoint is of a training that goes on."""

    metrics: dict[str, Number | list[Number]] = {}
    best: _Best | None = None
    data: dict[str, _Part] | None = None
    bad_samples: _BadSamples | None = None
    elapsed: dict[str, float] = {}
    hardware_info: _Hardware | None = None
    status: str | None = None
    stop_reason: str | None = None
    spec_sha256: str | None = None


def check_results(content: dict[str, Any]) -> None:
    """Check what model card, table and reproduction are made of.

    Raises:
        BundleError: `field_value`: something has a value that it may not have.

    Example:
        >>> check_results({"metrics": {"test/loss": 0.5}, "best": [1]})
        Traceback (most recent call last):
        gymtrain.errors.BundleError: results.json: best: got [1]; expected a dict, or null
    """
    checked(_Results, content, "results.json")
    best, metrics = content.get("best"), content.get("metrics", {})
    if best and any(isinstance(values, list) and 0 < len(values) < best["epoch"] for values in metrics.values()):
        raise fault("results.json", "best.epoch", f"got {best['epoch']}; expected an epoch that the metrics have")
