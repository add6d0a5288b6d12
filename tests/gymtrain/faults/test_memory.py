from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Runs out of memory in the third epoch, because of the size of the batch alone; then goes on without the limit.
OUT_OF_MEMORY = """
import json, resource, sys
from pathlib import Path
import numpy as np
import gymtrain
from gymtrain import Callback, Trainer

root = Path(sys.argv[1])
X = np.random.default_rng(0).random((5000, 8), dtype=np.float32)
y = (X[:, 0] > 0.5).astype(int)

def trainer(**checkpoint):
    return Trainer(
        dataset={"dataset": {"type": "arrays", "X": X, "y": y}, "samples": {"train": 4321, "test": 600}},
        model={
            "model": {"type": "mlp", "hidden": [2048]},
            "training": {"epochs": 4, "batch_size": 4321, **checkpoint},
        },
        tracking={"root": str(root / "runs")},
    )

def mapped():
    return int(Path("/proc/self/statm").read_text().split()[0]) * 4096

class Tight(Callback):
    def on_epoch_begin(self, state):
        if state.epoch == 3:
            resource.setrlimit(resource.RLIMIT_AS, (mapped() + 24 * 2**20, resource.RLIM_INFINITY))

def digest(trainer):
    trainer.save(root / "model.zip")
    return gymtrain.inspect(root / "model.zip")["manifest"]["members"]["weights.safetensors"]["sha256"]

failed = trainer(checkpoint={})
try:
    failed.train([Tight()])
    told = None
except Exception as error:
    told = [type(error).__name__, str(error), type(error.__cause__).__name__]
finally:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
run = Path(failed.result["run"]["run_dir"])
written = json.loads((run / "result.json").read_text())["status"]
resumed, whole = trainer(checkpoint={}), trainer()
resumed.train(resume=run)
whole.train()
print(json.dumps({
    "told": told,
    "status": failed.result["status"],
    "written": written,
    "checkpoints": len(list((run / "checkpoints").glob("*.zip"))),
    "resumed": [resumed.result["metrics"], digest(resumed)],
    "whole": [whole.result["metrics"], digest(whole)],
}))
"""

# Trains on 64 MiB of float32 in an array, or 128 MiB of float64 in a file, with so much address space; prints how much
# more memory than before it had at most, as a multiple of the data.
LARGE = """
import json, resource, sys
from pathlib import Path
import numpy as np
from gymtrain import Trainer

root, kind, preprocessors, limit = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), float(sys.argv[4])
ROWS, FEATURES = 2**18, 64

def train(dataset):
    Trainer(
        dataset={"dataset": dataset, "preprocessors": preprocessors},
        model={"model": "linear", "training": {"epochs": 1, "batch_size": 4096}},
        tracking={"root": root},
    ).train()

def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

generator = np.random.default_rng(0)
if kind == "parquet":
    import pyarrow, pyarrow.parquet
    path, size = root + "/rows.parquet", ROWS * FEATURES * 8
    with pyarrow.parquet.ParquetWriter(path, pyarrow.schema([(f"x{i}", "f8") for i in range(FEATURES + 1)])) as writer:
        for _ in range(32):
            columns = list(generator.random((FEATURES + 1, ROWS // 32)))
            writer.write_table(pyarrow.table(columns, schema=writer.schema))
    dataset = {"type": "parquet", "path": path, "target": "x64"}
else:
    X = generator.random((ROWS, FEATURES), dtype=kind)
    dataset, size = {"type": "arrays", "X": X, "y": X[:, 0] > 0.5}, X.nbytes
train("iris")  # so that what is imported is there
resource.setrlimit(resource.RLIMIT_AS, (int(memory("VmSize") + limit * size), resource.RLIM_INFINITY))
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
before = memory("VmRSS")
train(dataset)
print(json.dumps((memory("VmHWM") - before) / size))
"""


def run(program: str, *arguments: object) -> object:
    command = [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def out_of_memory(tmp_path_factory):
    return run(OUT_OF_MEMORY, tmp_path_factory.mktemp("memory"))


@pytest.mark.slow
def test_a_batch_that_is_too_big_for_the_memory_is_told_of_with_its_size_and_what_to_try(out_of_memory):
    kind, message, cause = out_of_memory["told"]

    assert (kind, cause) == ("TrainingError", "RuntimeError")
    assert "after step 2, in epoch 3" in message
    assert "memory" in message
    assert "model.training.batch_size" in message
    assert "4321" in message
    assert "accumulate" in message


@pytest.mark.slow
def test_a_training_that_ran_out_of_memory_failed_and_goes_on_with_the_same_bits(out_of_memory):
    assert out_of_memory["status"] == out_of_memory["written"] == "FAILED"
    assert out_of_memory["checkpoints"] >= 1
    assert out_of_memory["resumed"] == out_of_memory["whole"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "preprocessors", "most"),
    [
        # Beside the caller's own array: the rows of the train part, and the same as float32.
        ("float32", [], 2.1),
        ("parquet", [], 6.0),
    ],
)
def test_data_need_so_many_times_their_size(tmp_path, kind, preprocessors, most):
    used = run(LARGE, tmp_path, kind, json.dumps(preprocessors), 12)

    assert used <= most
