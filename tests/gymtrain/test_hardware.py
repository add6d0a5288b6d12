from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import pytest

from gymtrain.hardware import _brand_from_cpuinfo, _within, cgroup_limits, collect_in_background, hardware_info

ONE_GPU = 'echo "0, NVIDIA H200, 143771, 570.133.20, 9.0, GPU-8a1b"'
# What a driver says that does not know compute_cap; GPUtil's question it understands.
OLD_DRIVER = """
case "$*" in
  *compute_cap*) echo 'Field "compute_cap" is not a valid field to query.'; exit 2 ;;
  *) echo "0, GPU-8a1b, 0, 11441, 0, 11441, 418.226, Tesla K80, [N/A], Disabled, Disabled, 35" ;;
esac
"""


@pytest.fixture
def machine_with(tmp_path):
    """Ask for the hardware in a process of its own, on a PATH that has an nvidia-smi with this script."""

    def ask(script=None, prelude=""):
        (tmp_path / "bin").mkdir(exist_ok=True)
        program = tmp_path / "bin" / "nvidia-smi"
        if script is not None:
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)
        code = f"import json, sys\n{prelude}\nfrom gymtrain.hardware import hardware_info\n"
        code += "print(json.dumps(hardware_info()))"
        environment = os.environ | {"PATH": os.pathsep.join([str(tmp_path / "bin"), "/usr/bin", "/bin"])}
        asked = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        return json.loads(asked.stdout)

    return ask


def test_the_result_is_json_and_has_every_key():
    info = hardware_info()
    assert json.loads(json.dumps(info, allow_nan=False)) == info
    assert list(info) == [
        "platform", "python", "host", "cpu", "memory", "gpu", "libraries", "threads", "errors",
    ]  # fmt: skip
    assert list(info["cpu"]) == ["brand", "arch", "cores", "cores_physical", "cores_available", "frequency_mhz"]
    assert list(info["memory"]) == ["total_bytes", "limit_bytes"]
    assert info["memory"]["total_bytes"] > 2**20
    assert 1 <= info["cpu"]["cores_available"] <= info["cpu"]["cores"]


def test_the_keys_of_the_old_system_are_there(machine_with):
    info = machine_with(ONE_GPU)
    assert isinstance(info["platform"], str)
    assert isinstance(info["cpu"]["brand"], str)
    assert isinstance(info["cpu"]["cores"], int)
    assert [(gpu["name"], gpu["memory"]) for gpu in info["gpu"]] == [("NVIDIA H200", 143771)]


def test_versions_are_those_of_the_installed_libraries():
    import numpy

    libraries = hardware_info()["libraries"]
    assert libraries["numpy"] == numpy.__version__
    assert {"gymtrain", "torch", "mlflow", "scikit-learn"} <= libraries.keys()


def test_the_caller_gets_a_copy():
    hardware_info()["cpu"]["brand"] = "changed"
    assert hardware_info()["cpu"]["brand"] != "changed"


def test_torch_is_not_imported_to_describe_the_machine(machine_with):
    prelude = "import atexit, os\natexit.register(lambda: 'torch' in sys.modules and os._exit(3))"
    assert machine_with(prelude=prelude)["threads"] == {}


def test_threads_of_torch_are_told_once_it_is_imported(machine_with):
    prelude = "from gymtrain.hardware import hardware_info; hardware_info()\nimport torch; torch.set_num_threads(1)"
    assert machine_with(prelude=prelude)["threads"] == {"torch": 1}


def test_background_collection_gives_the_same_answer():
    assert collect_in_background()() == hardware_info()


def test_background_collection_does_not_hold_up_the_exit():
    code = """
import threading, gymtrain.hardware as hardware
hardware.collect_in_background()
hardware._start(threading.Event().wait)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_a_machine_without_nvidia_smi_has_no_gpu_and_no_error(machine_with):
    info = machine_with()
    assert info["gpu"] == []
    assert info["errors"] == []


def test_a_gpu_is_read_from_nvidia_smi(machine_with):
    info = machine_with(ONE_GPU)
    assert info["errors"] == []
    assert info["gpu"] == [
        {
            "index": 0,
            "name": "NVIDIA H200",
            "memory_bytes": 143771 * 1024**2,
            "memory": 143771,
            "driver": "570.133.20",
            "capability": "9.0",
            "uuid": "GPU-8a1b",
        }
    ]


def test_what_the_driver_cannot_tell_is_none(machine_with):
    (gpu,) = machine_with('echo "0, NVIDIA GB10, [N/A], 580.95.05, 12.1, GPU-8a1b"')["gpu"]
    assert gpu["name"] == "NVIDIA GB10"
    assert gpu["memory_bytes"] is None
    assert gpu["memory"] is None


@pytest.mark.parametrize("status", [0, 6])
def test_no_devices_were_found_is_an_answer(machine_with, status):
    info = machine_with(f'echo "No devices were found"; exit {status}')
    assert info["gpu"] == []
    assert info["errors"] == []


def test_a_failing_nvidia_smi_is_reported_and_nothing_raises(machine_with):
    info = machine_with("echo NVIDIA-SMI has failed because it could not communicate with the driver; exit 9")
    assert info["gpu"] == []
    smi, gputil = info["errors"]
    assert smi == (
        "nvidia-smi: RuntimeError: exit status 9: "
        "NVIDIA-SMI has failed because it could not communicate with the driver"
    )
    assert gputil.startswith("GPUtil: ValueError: ")


def test_a_silent_failure_is_reported_too(machine_with):
    info = machine_with("exit 255")
    assert info["gpu"] == []
    assert info["errors"] == ["nvidia-smi: RuntimeError: exit status 255: it printed nothing"]


def test_a_hanging_nvidia_smi_is_given_up(machine_with):
    info = machine_with("exec sleep 600")
    assert info["gpu"] == []
    assert info["errors"] == ["nvidia-smi: TimeoutError: no answer within 2 s"]


def test_gputil_is_asked_where_the_driver_is_too_old_for_our_question(machine_with):
    info = machine_with(OLD_DRIVER)
    (gpu,) = info["gpu"]
    assert (gpu["name"], gpu["memory"], gpu["driver"]) == ("Tesla K80", 11441, "418.226")
    assert info["errors"] == [
        'nvidia-smi: RuntimeError: exit status 2: Field "compute_cap" is not a valid field to query.'
    ]


def test_a_missing_gputil_is_reported(machine_with):
    info = machine_with(OLD_DRIVER, prelude="sys.modules['GPUtil'] = None")
    assert info["gpu"] == []
    assert info["errors"][1].startswith("GPUtil: ModuleNotFoundError: ")


def test_py_cpuinfo_knows_the_processor_where_the_system_does_not_tell():
    assert _brand_from_cpuinfo()


def test_waiting_ends_at_the_limit():
    with pytest.raises(TimeoutError, match=r"^no answer within 0.01 s$"):
        _within(0.01, threading.Event().wait)


@pytest.fixture
def cgroup(tmp_path):
    """Write the files of control groups below a root of their own and read the limits from there."""

    def write(own, files):
        for name, text in {"proc/self/cgroup": own, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return cgroup_limits(tmp_path)

    return write


def test_limits_of_version_2_are_the_tightest_of_the_nested_groups(cgroup):
    limits = cgroup(
        "0::/pod/job\n",
        {
            "sys/fs/cgroup/pod/memory.max": "2147483648\n",
            "sys/fs/cgroup/pod/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/pod/job/memory.max": "max\n",
            "sys/fs/cgroup/pod/job/cpu.max": "400000 100000\n",
        },
    )
    assert limits == (2147483648, 1.5)


def test_limits_of_version_1_are_read_from_each_hierarchy(cgroup):
    limits = cgroup(
        "4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n0::/\n",
        {  # inside a container: the path is the host's and is not there
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert limits == (1073741824, 0.5)


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/\n", {}),
        ("0::/a folder\n", {"sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}),
        (
            "4:memory:/\n1:cpu:/\n",
            {
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
        ),
    ],
)
def test_no_limit_is_none(cgroup, own, files):
    assert cgroup(own, files) == (None, None)
