"""The reader of bundles, fuzzed by what its code runs through: `python coverage_fuzzing.py -max_total_time=180`.

Needs the extra `fuzz` (atheris); the arguments are those of libFuzzer. It begins with the frozen bundles. What it makes
of them are changed bytes of the file, or of one member in a bundle whose digests are made right again. It ends at the
first error other than a BundleError, and leaves the file that led to it in the working directory.
"""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]

with atheris.instrument_imports(include=["gymtrain.bundle"]):
    from bundle_forge import everything, take_apart

    from gymtrain.bundle import inspect, open_bundle

from gymtrain.errors import BundleError  # noqa: E402

FROZEN = Path(__file__).parents[1] / "tests" / "data" / "bundles"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        corpus, path = Path(folder) / "corpus", Path(folder) / "mutant.zip"
        corpus.mkdir()
        for bundle in FROZEN.glob("*.zip"):
            (corpus / bundle.name).write_bytes(bundle.read_bytes())

        def read(data: bytes) -> None:
            path.unlink(missing_ok=True)  # what was mapped before stays what it was
            path.write_bytes(data)
            for way in (inspect, lambda path: everything(open_bundle(path))):
                with contextlib.suppress(BundleError):
                    way(path)

        atheris.Setup([*sys.argv, "-max_len=20000", str(corpus)], read, custom_mutator=mutated)
        atheris.Fuzz()


def mutated(data: bytes, most: int, seed: int) -> bytes:
    """Change the bytes of a file, or those of one member."""
    chance = random.Random(seed)
    try:
        if chance.random() < 0.3:
            raise ValueError("the bytes")
        forge = take_apart(data)
        part = chance.choice(forge.parts)
        part.content = atheris.Mutate(part.content, len(part.content) + 64)
        if part.name != b"manifest.json":
            forge.seal()
        return forge.pack()[:most]
    except Exception:  # what is no zip file any more is changed as bytes
        return bytes(atheris.Mutate(data, most))


if __name__ == "__main__":
    main()
