from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bundle_forge import make_contents

from gymtrain import Trainer
from gymtrain.bundle import open_bundle, write
from gymtrain.errors import BundleError

FROZEN = Path(__file__).parents[2] / "data" / "bundles" / "format-1-network.zip"
MACHINE: dict[str, Any] = {"platform": None, "python": "3.12", "cpu": {"brand": None}, "gpu": [], "libraries": {}}


def bundle_with(results: dict[str, Any], path: Path) -> Path:
    """Write a bundle that loads, with these results."""
    with open_bundle(FROZEN) as opened:
        contents = replace(
            make_contents(),
            spec=opened.spec,
            schema=opened.schema,
            selfcheck=opened.selfcheck(),
            which_weights=opened.manifest["weights"],
            versions=opened.manifest["versions"],
            weights=opened.weights(),
            preprocessors=opened.preprocessors(),
            results=results,
        )
        write(path, contents)
    return path


@pytest.mark.parametrize(
    ("results", "place"),
    [
        ({"hardware_info": {}}, "hardware_info.cpu: missing"),
        ({"hardware_info": {**MACHINE, "cpu": {}}}, "hardware_info.cpu.brand: missing"),
        ({"hardware_info": {**MACHINE, "gpu": ["H100"]}}, r"hardware_info.gpu\[0\]: got 'H100'"),
        ({"best": [1]}, r"best: got \[1\]"),
        ({"best": {"epoch": 1, "metric": 2, "value": 0.5}}, "best.metric: got 2"),
        ({"best": {"epoch": True, "metric": "val/loss", "value": 0.5}}, "best.epoch: got True"),
        ({"metrics": {"val/loss": "low"}}, r"metrics.val/loss.*: got 'low'"),
        ({"metrics": {"val/loss": [0.5, "low"]}}, r"metrics.val/loss.*: got "),
        ({"metrics": []}, r"metrics: got \[\]"),
        ({"stop_reason": []}, r"stop_reason: got \[\]"),
        ({"status": 7}, "status: got 7"),
        ({"data": {"train": {"rows": 3}}}, "data.train.sha256: missing"),
        ({"bad_samples": {"count": -1, "first": []}}, "bad_samples.count: got -1"),
        ({"bad_samples": {"count": 1, "first": "x.jpg"}}, "bad_samples.first: got 'x.jpg'"),
    ],
)
def test_results_that_later_steps_could_not_take_are_refused_when_the_bundle_is_loaded(
    results: dict[str, Any], place: str, tmp_path: Path
) -> None:
    path = bundle_with(results, tmp_path / "forged.zip")

    with pytest.raises(BundleError, match=f"results.json: {place}") as caught:
        Trainer.load(path)

    assert caught.value.reason == "field_value"


@pytest.mark.parametrize(
    "results",
    [
        {},
        {"of a later version": [1], "best": None, "data": None, "hardware_info": None},
        {"best": {"epoch": 1, "metric": "val/a\nb", "value": None, "mode": "max"}, "hardware_info": MACHINE},
        {"metrics": {"train/loss": [1, None], "test/loss": None}, "data": {"train": {"rows": 3, "sha256": "0"}}},
    ],
)
def test_results_that_are_taken_can_be_saved_again(results: dict[str, Any], tmp_path: Path) -> None:
    trainer = Trainer.load(bundle_with(results, tmp_path / "good.zip"))

    trainer.save(tmp_path / "again.zip")

    assert Trainer.load(tmp_path / "again.zip").result == results
