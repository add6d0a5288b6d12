"""What `import gymtrain` and `gymtrain --help` cost against `import torch`: processor time, each in a new process."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

from _measure import arguments, header, interleaved, ratios, spread_text, table

COMMAND = str(Path(sys.executable).with_name("gymtrain"))
CONTENDERS = {
    "import torch": [sys.executable, "-c", "import torch"],
    "python": [sys.executable, "-c", "pass"],
    "import gymtrain": [sys.executable, "-c", "import gymtrain"],
    "from gymtrain import Dataset, Model": [sys.executable, "-c", "from gymtrain import Dataset, Model"],
    "gymtrain --help": [sys.executable, COMMAND, "--help"],
}
WATCHED = ("torch", "mlflow", "numpy", "rich")


def cpu_seconds(command: list[str]) -> float:
    """Run a command; return the processor time, of user and system, that it took."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def loaded(command: list[str]) -> set[str]:
    """Return the top-level packages that a command imports."""
    python, *rest = command
    trace = subprocess.run([python, "-X", "importtime", *rest], capture_output=True, text=True, check=True).stderr
    names = [line.rpartition("|")[2].strip() for line in trace.splitlines() if line.startswith("import time:")]
    return {name.partition(".")[0] for name in names}


def main() -> None:
    options = arguments("The cost of imports.", rounds=15)
    rounds = min(options.rounds, 3) if options.quick else options.rounds
    print(header("gymtrain", "torch", "mlflow", "typer", "pydantic", rounds=rounds), end="\n\n")
    seconds = interleaved({name: partial(cpu_seconds, command) for name, command in CONTENDERS.items()}, rounds)
    rows = []
    for name, spent in seconds.items():
        packages = loaded(CONTENDERS[name])
        found = ", ".join(package for package in WATCHED if package in packages) or "none"
        median = sorted(spent)[len(spent) // 2]
        rows.append([name, *spread_text(ratios(spent, seconds["import torch"])), f"{1e3 * median:.0f}", found])
    print(table(["what", "CPU time / import torch", "range", "CPU ms", f"loads of {', '.join(WATCHED)}"], rows))


if __name__ == "__main__":
    main()
