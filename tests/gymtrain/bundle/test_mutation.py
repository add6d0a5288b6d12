from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from bundle_mutation import is_allowed, outcomes_apart
from trained_bundles import make


@pytest.mark.slow
def test_a_thousand_mutants_are_refused_or_answer_as_the_bundle_does(tmp_path: Path):
    make(tmp_path)
    first = secrets.randbelow(1 << 40)  # of other mutants each time; a failure names the one

    told = [*outcomes_apart(tmp_path, 0, 500), *outcomes_apart(tmp_path, first, 500)]

    assert len(told) == 1000
    assert [each for each in told if not is_allowed(each["outcome"])] == []
    reasons = {each["outcome"] for each in told}
    assert {"json", "field_value", "digest", "corrupt", "header_mismatch", "weights_layout", "spec"} <= reasons
