"""Bundles that are changed at random, each from a number: the same number makes the same file again.

As a program (`python bundle_mutation.py FOLDER FIRST COUNT`) it loads mutants of the bundles in a folder and lets them
predict, and prints one JSON object per line: the number before it begins, and then what came of it. In a process of its
own, because a mutant that ends it has to be seen, too.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bundle_forge import Forge, Part, take_apart
from hostile_states import places_in, replaced

from gymtrain import BundleError, Trainer
from gymtrain.errors import GymtrainError

HEADERS = ("crc", "size", "stored_size", "method", "flags", "time", "date", "version")
DIRECTORY = ("offset", "external", "internal", "disk", "made_by")
END = ("count", "count_here", "start", "length", "disk", "start_disk")
NUMBERS = (0, 1, 2, 8, 0xFF, 0xFFFF)
WIDE = (*NUMBERS, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
TEXTS = ("", "0", "64", "text", "binary", "/etc/passwd", "http://127.0.0.1:1/", "os:system", "U100000000", "O", "\0")
VALUES: tuple[Any, ...] = (
    *(..., None, True, False, 0, -1, 1, 2, 1.5, 1e-320, 1e308, 2**31, 2**63, -(2**63), 10**30, *TEXTS),
    *([], [1], [[]], [0], [-1], [2**40, 2**40], {}, {"type": "x"}, {"type": "os:system"}, {"$tensor": "x"}),
)
TOKENS = (b"NaN", b"1e999", b"-", b"[" * 99, b'"', b"\\ud800", b"\xff", b"{}", b",", b'"a":1,"a":2', b"\0")
DTYPES = ("BOOL", "U8", "I8", "F16", "BF16", "I32", "F32", "F64", "I64", "C64", "F8_E4M3", "F31")
SECONDS = 60  # for one mutant; what takes longer hangs


class Mutant(NamedTuple):
    """A bundle that was changed.

    Args:
        content: Its bytes.
        recipe: What was done to it.
        is_sealed: Whether the digests in it were made right again, as somebody does who means it.
    """

    content: bytes
    recipe: str
    is_sealed: bool


def mutant(good: bytes, seed: int) -> Mutant:
    """Change a bundle in one to three ways that the number decides."""
    chance = random.Random(seed)
    if chance.random() < 0.2:
        return Mutant(*_changed_bytes(good, chance), is_sealed=False)
    forge = take_apart(good)
    recipe = [_CHANGES[chance.randrange(len(_CHANGES))](forge, chance) for _ in range(chance.choice((1, 1, 1, 2, 3)))]
    is_sealed = chance.random() < 0.7 and _seal(forge)
    end = {chance.choice(END): chance.choice(WIDE[:6])} if chance.random() < 0.05 else {}
    content = forge.pack(zip64=chance.random() < 0.1, **end)
    return Mutant(content, "; ".join([*recipe, *map(str, end.items())]), is_sealed)


def _seal(forge: Forge) -> bool:
    """Make the manifest true again, if it still is one."""
    try:
        forge.seal()
    except (StopIteration, ValueError, TypeError):
        return False
    return True


def _changed_bytes(good: bytes, chance: random.Random) -> tuple[bytes, str]:
    at, length = chance.randrange(len(good)), chance.choice((1, 1, 2, 4, 8, 64, 1000))
    other = chance.randrange(len(good))
    kind = chance.choice(("bit", "bytes", "cut", "removed", "repeated", "moved", "zeros"))
    changed = {
        "bit": lambda: good[:at] + bytes([good[at] ^ 1 << chance.randrange(8)]) + good[at + 1 :],
        "bytes": lambda: good[:at] + chance.randbytes(length) + good[at + length :],
        "cut": lambda: good[:at],
        "removed": lambda: good[:at] + good[at + length :],
        "repeated": lambda: good[:at] + good[at : at + length] + good[at:],
        "moved": lambda: good[:at] + good[other : other + length] + good[at + length :],
        "zeros": lambda: good[:at] + bytes(length) + good[at + length :],
    }[kind]()
    return changed, f"{kind} at {at}"


def _any_part(forge: Forge, chance: random.Random, suffix: bytes = b"") -> Part:
    # What skops wrote is changed by bytes alone, with digests that are wrong then: SECURITY.md says what a sealed one
    # may do.
    parts = [part for part in forge.parts if part.name.endswith(suffix) and not part.name.endswith(b".skops")]
    return chance.choice(parts or forge.parts)


def _change_value(forge: Forge, chance: random.Random) -> str:
    part = _any_part(forge, chance, b".json")
    try:
        tree = json.loads(part.content)
    except ValueError:
        return "nothing"
    place = chance.choice(list(places_in(tree)))
    value = chance.choice(VALUES)
    part.content = json.dumps(replaced(tree, place, value)).encode()
    return f"{part.name.decode()} {place} is {value!r}"


def _swap_values(forge: Forge, chance: random.Random) -> str:
    part = _any_part(forge, chance, b".json")
    try:
        tree = json.loads(part.content)
    except ValueError:
        return "nothing"
    place, other = (chance.choice(list(places_in(tree))[1:] or [()]) for _ in range(2))
    value: Any = tree
    for key in other:
        value = value[key]
    part.content = json.dumps(replaced(tree, place, json.loads(json.dumps(value)))).encode()
    return f"{part.name.decode()} {place} is what {other} is"


def _change_text(forge: Forge, chance: random.Random) -> str:
    part = _any_part(forge, chance, b".json")
    at, token = chance.randrange(len(part.content) + 1), chance.choice(TOKENS)
    part.content = part.content[:at] + token + part.content[at + chance.choice((0, 1)) :]
    return f"{part.name.decode()} {token[:9]!r} at {at}"


def _change_tensors(forge: Forge, chance: random.Random) -> str:
    """Change the header of safetensors, and make its length right again."""
    part = _any_part(forge, chance, b".safetensors")
    length = int.from_bytes(part.content[:8], "little")
    try:
        header = json.loads(part.content[8 : 8 + length])
        name = chance.choice([name for name in header if name != "__metadata__"])
        entry, key = header[name], chance.choice(("dtype", "shape", "data_offsets", "name", "removed"))
        if key == "dtype":
            entry[key] = chance.choice(DTYPES)
        elif key in ("shape", "data_offsets"):
            numbers = entry[key]
            at = chance.randrange(len(numbers) or 1)
            numbers[at : at + chance.choice((0, 1, 1))] = [chance.choice((0, 1, 2, -1, 8, 2**63, 1.5, None, True))]
        elif key == "name":
            header[chance.choice(("x", "mean", "scale", "rows", "0.weight"))] = header.pop(name)
        else:
            del header[name]
    except (ValueError, IndexError, TypeError, KeyError, AttributeError):
        return "nothing"
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % 64)
    part.content = len(text).to_bytes(8, "little") + text + part.content[8 + length :]
    return f"{part.name.decode()} {name!r} {key}"


def _change_data(forge: Forge, chance: random.Random) -> str:
    part = _any_part(forge, chance)
    at, length = chance.randrange(len(part.content) + 1), chance.choice((1, 4, 8, 32))
    value = chance.choice((chance.randbytes(length), bytes(length), b"\xff" * length, b"\0\0\xc0\x7f" * (length // 4)))
    part.content = part.content[:at] + value + part.content[at + chance.choice((0, len(value), len(value))) :]
    return f"{part.name!r} {len(value)} bytes at {at}"


def _change_header(forge: Forge, chance: random.Random) -> str:
    part = chance.choice(forge.parts)
    where = chance.choice((part.local, part.central))
    field = chance.choice(HEADERS if where is part.local else HEADERS + DIRECTORY)
    where[field] = chance.choice(WIDE if field in ("crc", "size", "stored_size", "offset", "external") else NUMBERS)
    return f"{part.name!r} {field} is {where[field]}"


def _change_members(forge: Forge, chance: random.Random) -> str:
    part, other = chance.choice(forge.parts), chance.choice(forge.parts)
    kind = chance.choice(("removed", "twice", "renamed", "of another", "shuffled", "deflated"))
    if kind == "removed" and len(forge.parts) > 1:
        forge.parts.remove(part)
    elif kind == "twice":
        forge.parts.insert(0, Part(part.name, part.content))
    elif kind == "renamed":
        part.name = chance.choice((other.name, b"model.skops", b"model.json", b"training/state.json", b"x", b"../x"))
    elif kind == "of another" and not other.name.endswith(b".skops"):
        part.content = other.content
    elif kind == "shuffled":
        chance.shuffle(forge.parts)
    else:
        part.method = 8
    return f"{part.name!r} {kind}"


_CHANGES: tuple[Callable[[Forge, random.Random], str], ...] = (
    *(_change_value, _change_value, _change_value, _swap_values, _change_text),
    *(_change_tensors, _change_data, _change_header, _change_members),
)


class Bundle(NamedTuple):
    """A good bundle, and what it answers to rows."""

    content: bytes
    rows: Any
    answer: tuple[str, bytes]


def answer_of(trainer: Any, rows: Any) -> tuple[str, bytes]:
    """Return what a trainer predicts: the labels in words, the scores in bytes."""
    return str(trainer.predict(rows).tolist()), trainer._predictor.scores(rows).tobytes()


def outcomes(folder: Path, seeds: Iterator[int]) -> Iterator[dict[str, Any]]:
    """Load the mutants with these numbers, of each bundle in turn; yield the number, and then what came of it."""
    paths = sorted(folder.glob("*.zip"))
    bundles = []
    for path in paths:
        trainer = Trainer.load(path)
        rows = trainer._predictor.examples
        bundles.append(Bundle(path.read_bytes(), rows, answer_of(trainer, rows)))
    warnings.simplefilter("ignore")  # a mutant may well warn
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "mutant.zip"
        for seed in seeds:
            bundle = bundles[seed % len(bundles)]
            changed = mutant(bundle.content, seed)
            path.unlink(missing_ok=True)  # what was mapped before stays what it was
            path.write_bytes(changed.content)
            signal.alarm(SECONDS)
            yield {"seed": seed, "outcome": "begun", "of": paths[seed % len(bundles)].name, "recipe": changed.recipe}
            start = time.perf_counter()
            try:
                trainer = Trainer.load(path)
                answer = answer_of(trainer, bundle.rows)
                same = answer == bundle.answer
                outcome = "the same answer" if same else "another answer" if changed.is_sealed else "a wrong answer"
            except BundleError as error:
                outcome = error.reason
            except GymtrainError as error:
                outcome = f"loaded, then {type(error).__name__}" if changed.is_sealed else f"unsealed, {error!r}"
            except Exception as error:
                outcome = f"failed: {type(error).__name__}: {error}"
            yield {"seed": seed, "outcome": outcome, "seconds": time.perf_counter() - start, "grown": _memory()}


def _memory() -> int:
    """Return the most memory that this process has had, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def is_allowed(outcome: str) -> bool:
    """Whether a mutant may come to this."""
    return not outcome.startswith(("failed", "unsealed", "a wrong answer", "died"))


def outcomes_apart(folder: Path, first: int, count: int) -> Iterator[dict[str, Any]]:
    """Yield what came of mutants that another process loaded; of one that ended it too, and of those after that."""
    last = first + count
    while first < last:
        command = [sys.executable, __file__, str(folder), str(first), str(last - first)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            begun: dict[str, Any] = {"seed": first - 1}
            try:
                for line in process.stdout:
                    told = json.loads(line)
                    if told["outcome"] == "begun":
                        begun = told
                    else:
                        yield begun | told
            except GeneratorExit:  # whoever listened has heard enough
                process.kill()
                raise
        if process.returncode and begun["seed"] < first:
            raise RuntimeError(f"{command} ended with {process.returncode} before the first mutant")
        if process.returncode:
            yield begun | {"outcome": f"died: {process.returncode}", "seconds": 0.0, "grown": 0}
        first = begun["seed"] + 1


def _main(folder: Path, first: int, count: int) -> None:
    import torch

    torch.set_num_threads(1)  # the models are tiny
    for outcome in outcomes(folder, iter(range(first, first + count))):
        sys.stdout.write(json.dumps(outcome) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
