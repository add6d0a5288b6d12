"""Bundles that were frozen once, each with what it answered then."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from trained_bundles import FROZEN, answers

from gymtrain import Trainer, inspect
from gymtrain.bundle.format import FORMAT_VERSION

BUNDLES = sorted(FROZEN.glob("*.zip"))


@pytest.mark.parametrize("path", BUNDLES, ids=[path.stem for path in BUNDLES])
def test_a_frozen_bundle_answers_as_it_did(path: Path):
    expected = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))

    found = answers(Trainer.load(path), path.stem.split("-")[2])

    assert found.keys() == expected.keys()
    if "probabilities" in expected:
        assert found["labels"] == expected["labels"]
        np.testing.assert_allclose(found["probabilities"], expected["probabilities"], atol=1e-6)
    else:
        np.testing.assert_allclose(found["labels"], expected["labels"], rtol=1e-5)


def test_every_format_has_a_frozen_bundle():
    versions = {inspect(path)["manifest"]["format_version"] for path in BUNDLES}

    assert versions == set(range(1, FORMAT_VERSION + 1))
