from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import killed_saves
import pytest


@pytest.mark.slow
def test_a_save_that_is_killed_at_any_moment_leaves_the_old_bundle_or_the_new_one_whole(tmp_path: Path):
    folder = tmp_path / "bundles"
    folder.mkdir()
    command = [sys.executable, killed_saves.__file__, str(folder), "100", "0"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == 100
    assert sum(each["killed"] for each in told) > 50
    assert max(each["left"] for each in told) <= 1  # the next save removes what the one before has left
