"""What this machine is: system, processor, memory, GPUs and the versions of the libraries that matter.

Nothing here raises: what cannot be found out is None, and `errors` says why. Other programs are asked with a time
limit, since drivers hang and py-cpuinfo sleeps for a second. torch is asked only where it is already imported.
"""

from __future__ import annotations

import copy
import csv
import functools
import importlib.metadata
import math
import os
import platform
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import psutil

_T = TypeVar("_T")

_LIBRARIES = (
    "gymtrain",
    "mlflow",
    "numpy",
    "pandas",
    "polars",
    "psutil",
    "pyarrow",
    "pydantic",
    "scikit-learn",
    "skops",
    "tensorboard",
    "torch",
    "torchmetrics",
)
_GPU_FIELDS = ("index", "name", "memory.total", "driver_version", "compute_cap", "uuid")
_PROGRAM_SECONDS = 2.0
_CPUINFO_SECONDS = 8.0
_MIB = 1024**2


class Limits(NamedTuple):
    """What control groups leave to this process, bytes and cores; None where they set no limit."""

    memory_bytes: int | None = None
    cores: float | None = None


def hardware_info() -> dict[str, Any]:
    """Describe this machine; never raises.

    The first call may take seconds where a driver is slow (`collect_in_background` hides them), later ones hand out
    copies of its answer. What torch tells is added once torch is imported.

    Returns:
        A JSON-serialisable dict, None for what is unknown:

        - `platform`, `python`, `host`
        - `cpu`: `brand`, `arch`, `cores`, `cores_physical`, `cores_available` (those that affinity and control groups
          leave), `frequency_mhz`
        - `memory`: `total_bytes`, `limit_bytes` (of the control groups)
        - `gpu`, a list: `index`, `name`, `memory_bytes`, `memory` (in MiB), `driver`, `capability`, `uuid`
        - `libraries`: the version of each one that is installed
        - `threads`: `torch`, once it is imported
        - `errors`: what went wrong meanwhile, a list of sentences

    Example:
        >>> info = hardware_info()
        >>> info["cpu"]["cores"] >= info["cpu"]["cores_available"] >= 1, "torch" in info["libraries"]
        (True, True)
    """
    return copy.deepcopy(_collect("torch" in sys.modules))


def collect_in_background() -> Callable[[], dict[str, Any]]:
    """Start to find out what `hardware_info` tells, in a thread that does not keep the process alive.

    Returns:
        A function that waits until the answer is there and returns it.

    Example:
        >>> join = collect_in_background()  # at the beginning of training
        >>> sorted(join()["memory"])  # at its end
        ['limit_bytes', 'total_bytes']
    """
    return _start(hardware_info).result


def cgroup_limits(root: Path = Path("/")) -> Limits:
    """Read what the control groups of this process (version 1 or 2) allow; the tightest of the nested ones counts.

    Args:
        root: The folder that holds `proc` and `sys`.

    Example:
        >>> cgroup_limits(Path("/nowhere"))
        Limits(memory_bytes=None, cores=None)
    """
    memory: list[int] = []
    cores: list[float] = []
    for group in _groups(root):
        memory += [int(word) for word in _words(group / "memory.max") if word != "max"]
        # Version 1 writes "no limit" as the last page of an int64.
        memory += [int(word) for word in _words(group / "memory.limit_in_bytes") if int(word) < 2**60]
        quota = _words(group / "cpu.max") or _words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us")
        if len(quota) == 2 and quota[0] not in ("max", "-1"):
            cores.append(int(quota[0]) / int(quota[1]))
    return Limits(min(memory, default=None), min(cores, default=None))


class _Attempts:
    """Calls what may fail and remembers how it failed."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def __call__(self, what: str, function: Callable[[], _T]) -> _T | None:
        try:
            return function()
        except Exception as error:
            self.failed(what, error)
            return None

    def failed(self, what: str, error: Exception) -> None:
        self.errors.append(f"{what}: {type(error).__name__}: {error}")


@functools.cache
def _collect(torch_is_imported: bool) -> dict[str, Any]:
    attempt = _Attempts()
    torch = sys.modules["torch"] if torch_is_imported else None
    limits = attempt("control groups", cgroup_limits) or Limits()
    return {
        "platform": attempt("platform", platform.platform),
        "python": platform.python_version(),
        "host": attempt("host", socket.gethostname),
        "cpu": {
            "brand": attempt("CPU brand", _brand_from_system) or attempt("py-cpuinfo", _brand_from_cpuinfo),
            "arch": platform.machine(),
            "cores": os.cpu_count(),
            "cores_physical": attempt("physical cores", lambda: psutil.cpu_count(logical=False)),
            "cores_available": attempt("available cores", lambda: _available_cores(limits)),
            "frequency_mhz": attempt("CPU frequency", _frequency_mhz),
        },
        "memory": {
            "total_bytes": attempt("memory", lambda: psutil.virtual_memory().total),
            "limit_bytes": limits.memory_bytes,
        },
        "gpu": _gpus(torch, attempt),
        "libraries": attempt("libraries", library_versions) or {},
        "threads": {"torch": attempt("threads of torch", torch.get_num_threads)} if torch else {},
        "errors": attempt.errors,
    }


def _start(function: Callable[[], _T]) -> Future[_T]:
    """Call a function in a daemon thread: unlike those of an executor, it may hang without holding up the exit."""
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="gymtrain-hardware", daemon=True).start()
    return future


def _within(seconds: float, function: Callable[[], _T]) -> _T:
    try:
        return _start(function).result(timeout=seconds)
    except TimeoutError as error:
        raise TimeoutError(f"no answer within {seconds:g} s") from error


def _output_of(*command: str) -> str:
    """Return what a program prints to stdout.

    Raises:
        TimeoutError: It did not end in time.
        RuntimeError: It failed.
    """

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_PROGRAM_SECONDS,
            check=False,
        )

    try:
        # A program that waits inside a driver outlives being killed, and `run` would wait for it.
        done = _within(_PROGRAM_SECONDS + 1, run)
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"no answer within {_PROGRAM_SECONDS:g} s") from error
    if done.returncode != 0:
        said = " ".join((done.stdout + done.stderr).split())[:200]
        raise RuntimeError(f"exit status {done.returncode}: {said or 'it printed nothing'}")
    return done.stdout


def _brand_from_system() -> str | None:
    if sys.platform == "darwin":
        return _output_of("sysctl", "-n", "machdep.cpu.brand_string").strip()
    if sys.platform == "win32":
        import winreg

        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0") as key:
            return str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip()
    for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return None  # ARM processors have no such line


def _brand_from_cpuinfo() -> str | None:
    if getattr(sys, "frozen", False):
        return None  # there py-cpuinfo starts the user's own program a second time
    import cpuinfo

    brand = _within(_CPUINFO_SECONDS, cpuinfo.get_cpu_info).get("brand_raw")
    return None if brand is None else str(brand)


def _available_cores(limits: Limits) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if limits.cores is None else max(1, min(cores, math.ceil(limits.cores)))


def _frequency_mhz() -> float | None:
    frequency = psutil.cpu_freq()
    return None if frequency is None else float(frequency.max or frequency.current)


def _groups(root: Path) -> Iterator[Path]:
    """Walk from each control group of this process up to where its hierarchy is mounted."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        mount = root / "sys/fs/cgroup" / controllers.split(",")[0]  # version 2 names no controllers
        group = mount / path.lstrip("/")
        # In a container the path may be the host's, which is not there; the mount is then the group itself.
        yield from [group, *group.parents][: len(group.parts) - len(mount.parts) + 1]


def _words(path: Path) -> list[str]:
    return _text(path).split()


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def library_versions(*names: str) -> dict[str, str]:
    """Return the versions of libraries, all that matter or those named, where installed, without importing any."""
    versions = {name: _version(name) for name in names or _LIBRARIES}
    return {name: version for name, version in versions.items() if version is not None}


@functools.cache
def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpus(torch: ModuleType | None, attempt: _Attempts) -> list[dict[str, Any]]:
    """List the GPUs that torch sees, or where it sees none those of the driver."""
    seen = attempt("GPUs of torch", lambda: _gpus_of_torch(torch)) if torch else None
    of_driver = _gpus_of_driver(attempt)
    if not seen:
        return of_driver
    drivers = {gpu["uuid"]: gpu["driver"] for gpu in of_driver}
    return [gpu | {"driver": drivers.get(gpu["uuid"])} for gpu in seen]


def _gpus_of_torch(torch: ModuleType) -> list[dict[str, Any]]:
    if not torch.accelerator.is_available():
        return []
    kind = torch.accelerator.current_accelerator().type
    if kind == "mps":
        return [_gpu(0, "Apple GPU", torch.mps.recommended_max_memory())]
    gpus = []
    for index in range(torch.accelerator.device_count()):
        found = torch.get_device_module(kind).get_device_properties(index)
        capability = f"{found.major}.{found.minor}" if hasattr(found, "major") else None
        uuid = f"GPU-{found.uuid}" if hasattr(found, "uuid") else None
        gpus.append(_gpu(index, found.name, found.total_memory, capability=capability, uuid=uuid))
    return gpus


def _gpus_of_driver(attempt: _Attempts) -> list[dict[str, Any]]:
    program = shutil.which("nvidia-smi")
    if program is not None:
        try:
            return _gpus_of_nvidia_smi(program)
        except TimeoutError as error:
            attempt.failed("nvidia-smi", error)
            return []  # GPUtil would wait for the same program, without a limit
        except Exception as error:
            attempt.failed("nvidia-smi", error)
    elif sys.platform != "win32":
        return []  # GPUtil looks beyond PATH on Windows alone
    return attempt("GPUtil", _gpus_of_gputil) or []


def _gpus_of_nvidia_smi(program: str) -> list[dict[str, Any]]:
    nothing = "No devices were found"
    try:
        output = _output_of(program, f"--query-gpu={','.join(_GPU_FIELDS)}", "--format=csv,noheader,nounits")
    except RuntimeError as error:
        if nothing in str(error):
            return []
        raise
    if nothing in output:
        return []
    gpus = []
    for row in csv.reader(output.splitlines(), skipinitialspace=True):
        # A field that the driver cannot tell is "[N/A]", "[Not Supported]" and the like.
        index, name, memory, driver, capability, uuid = (None if word.startswith("[") else word for word in row)
        memory_bytes = None if memory is None else int(memory) * _MIB
        gpus.append(_gpu(int(index or 0), name, memory_bytes, driver, capability, uuid))
    return gpus


def _gpus_of_gputil() -> list[dict[str, Any]]:
    """Ask GPUtil, whose query also older drivers understand, which do not know `compute_cap`."""
    import GPUtil

    return [
        _gpu(
            gpu.id,
            gpu.name,
            None if math.isnan(gpu.memoryTotal) else int(gpu.memoryTotal) * _MIB,
            gpu.driver,
            None,
            gpu.uuid,
        )
        for gpu in GPUtil.getGPUs()
    ]


def _gpu(
    index: int,
    name: str | None,
    memory_bytes: int | None,
    driver: str | None = None,
    capability: str | None = None,
    uuid: str | None = None,
) -> dict[str, Any]:
    return {
        "index": index,
        "name": name,
        "memory_bytes": memory_bytes,
        "memory": None if memory_bytes is None else memory_bytes / _MIB,
        "driver": driver,
        "capability": capability,
        "uuid": uuid,
    }
