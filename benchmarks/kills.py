"""Trainings that are killed at random moments and resumed, against one that was not: the same bits, or not.

And saves over a bundle that are killed at random moments: the old one or the new one, whole, or not.

The training of tests/gymtrain/training/test_exactness.py: dropout, augmentation, batch norm, momentum, schedules, an
average of the weights and early stopping, with a checkpoint every 3 steps and at each epoch's end.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

from _measure import arguments, header, table

sys.path[:0] = [str(Path(__file__).parents[1] / "tests" / part) for part in (".", "gymtrain/training")]

from killed_saves import killed_saves  # noqa: E402
from test_exactness import STEPS, end, run  # noqa: E402


def main() -> None:
    options = arguments("Killed at random moments, resumed, compared.", rounds=20)
    count = 2 if options.quick else options.rounds
    generator = random.Random(0)
    kinds = {
        "SIGKILL, once": [{"delay": 0.0}],
        "SIGKILL, twice": [{"delay": 0.0}, {"delay": 0.0}],
        "SIGKILL, three times": [{"delay": 0.0}] * 3,
        "SIGTERM": [{"number": signal.SIGTERM}],
    }
    print(header("gymtrain", "torch", rounds=count), end="\n\n")
    rows = []
    with tempfile.TemporaryDirectory() as root:
        (Path(root) / "whole").mkdir()
        whole = end(Path(root) / "whole")
        for kind, kills in kinds.items():
            same = 0
            for attempt in range(count):
                directory = Path(root) / f"{kind} {attempt}"
                for step in sorted(generator.sample(range(1, STEPS), len(kills))):
                    chosen = dict(kills[0])
                    if "delay" in chosen:  # some of these moments are within the writing of a checkpoint
                        chosen["delay"] = generator.uniform(0, 0.03)
                    run(directory, step=step, **chosen)
                same += end(directory) == whole
            rows.append([kind, str(count), str(same)])
    print(table(["killed", "trainings", "the same bits"], rows), end="\n\n")
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "bundles"
        folder.mkdir()
        told = Counter((each["killed"], each["is"]) for each in killed_saves(folder, 25 * count, seed=0))
    rows = [["killed" if killed else "had ended", there, str(times)] for (killed, there), times in sorted(told.items())]
    print(table(["a save over a bundle", "there is, whole", "saves"], rows))


if __name__ == "__main__":
    main()
