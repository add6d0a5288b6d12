"""Bundles that are changed at random, loaded and asked: refused, or the answer is the one of the bundle.

A mutant is a bundle of one of the kinds in tests/trained_bundles.py in which one to three things were changed: bytes,
members, headers of the zip, values of JSON, headers and data of tensors; in half of them all digests were made right
again. Each is made of its number: `--first` makes those of another run again. They are loaded in a process of their
own, which is begun anew when one of them ends it or takes a minute.
"""

from __future__ import annotations

import secrets
import sys
import tempfile
import time
from collections import Counter
from itertools import count
from pathlib import Path

from _measure import arguments_parser, header, table

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]

from bundle_mutation import is_allowed, outcomes_apart  # noqa: E402
from trained_bundles import make  # noqa: E402

AT_A_TIME = 20_000


def main() -> None:
    parser = arguments_parser("Bundles changed at random.", rounds=1)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long")
    parser.add_argument("--first", type=int, default=secrets.randbelow(1 << 40), help="the number of the first mutant")
    options = parser.parse_args()
    print(header("gymtrain", "torch", "numpy", "scikit-learn", "skops", rounds=1))
    print(f"- mutants from number {options.first}", end="\n\n", flush=True)
    outcomes: Counter[str] = Counter()
    refused, slowest, grown = [], 0.0, 0
    begin = time.monotonic()
    end = begin + (3 if options.quick else options.minutes * 60)
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        for first in count(options.first, AT_A_TIME):
            least = 0
            for told in outcomes_apart(Path(folder), first, AT_A_TIME):
                outcome = told["outcome"]
                outcomes[outcome.partition(":")[0]] += 1
                slowest, least = max(slowest, told["seconds"]), least or told["grown"]
                grown = max(grown, told["grown"] - least)
                if not is_allowed(outcome):
                    refused.append(told)
                    print(told, flush=True)
                if time.monotonic() > end:
                    break
            if time.monotonic() > end:
                break
    total, elapsed = sum(outcomes.values()), time.monotonic() - begin
    print(table(["what came of a mutant", "mutants"], [[name, str(each)] for name, each in outcomes.most_common()]))
    print(
        f"\n{total} mutants in {elapsed / 60:.1f} minutes, {total / elapsed:.0f} a second; the slowest took "
        f"{slowest:.2f} s, the memory grew by {grown / 1024:.0f} MiB; {len(refused)} came to what none may come to."
    )


if __name__ == "__main__":
    main()
