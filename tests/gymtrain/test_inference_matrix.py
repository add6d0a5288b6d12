"""What a prediction may depend on: not on the rows beside a row, not on threads, processes and forms of rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from bundle_forge import take_apart

from gymtrain import InputError, TaskError, Trainer

TESTS = Path(__file__).parents[1]
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(2500, 12)).astype(np.float32)
IMAGES = RANDOM.normal(size=(1500, 9, 8)).astype(np.float32)
Y = {
    "binary": (X[:, 0] > 0).astype(int),
    "multiclass": (X[:, 0] > 0).astype(int) + (X[:, 1] > 0),
    "multilabel": (X[:, :2] > 0).astype(int),
    "regression": X[:, 0] + X[:, 1] ** 2,
}
SIZES = (1, 3, 7, 17, 32, 250, 256, 1000)


@pytest.fixture
def threads() -> Iterator[None]:
    """Torch has its number of threads back in the end."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def answer(trainer: Trainer, rows: Any) -> np.ndarray:
    """Return what tells the most of each row."""
    return trainer.predict(rows) if trainer._predictor.task.name == "regression" else trainer.predict_proba(rows)


def number_of_others(one: np.ndarray, other: np.ndarray) -> int:
    """Return how many rows differ in a bit."""
    assert one.shape == other.shape
    assert one.dtype == other.dtype
    return int((one != other).reshape(len(one), -1).any(axis=1).sum())


def mlp(*hidden: int, **arguments: Any) -> dict[str, Any]:
    return {"type": "mlp", "hidden": list(hidden), **arguments}


def sklearn(estimator: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "sklearn", "estimator": estimator, **arguments}


def transformer(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "sklearn", "transformer": name, **arguments}


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize(
    ("task", "model", "preprocessors"),
    [
        ("multiclass", "linear", []),
        ("binary", "linear", ["min_max_scaler"]),
        ("multiclass", mlp(64, 64), ["standard_scaler"]),
        ("multilabel", mlp(100, 24), ["tabular"]),  # widths that several threads do not share evenly
        ("binary", mlp(33, 17, activation="gelu"), [{"type": "kbest", "k": 7}]),
        ("regression", mlp(33, activation="tanh", dropout=0.5), [{"type": "divide", "factor": 3.0}]),
        ("regression", mlp(256), [transformer("PCA", n_components=7)]),
        ("multiclass", {"type": "cnn", "channels": [5, 8]}, []),
        ("binary", {"type": "cnn", "channels": [8], "activation": "silu"}, ["standard_scaler"]),
        ("multiclass", "linear", [{"type": "kbest", "k": 9}]),  # rows that do not all begin at multiples of 16 bytes
        ("multiclass", mlp(10, 5), ["standard_scaler"]),
        ("multiclass", {"type": "cnn", "channels": [7], "kernel_size": 1, "hidden": [9]}, []),
        ("multiclass", {"type": "resnet", "blocks": [1, 1], "width": 6}, []),
        ("binary", sklearn("LogisticRegression"), [transformer("Nystroem", n_components=20)]),
        ("multiclass", sklearn("MLPClassifier", max_iter=2), ["standard_scaler"]),
        ("regression", sklearn("Ridge"), []),
    ],
    ids=str,
)
def test_no_row_depends_on_those_beside_it_nor_on_the_threads(tiny, threads, task, model, preprocessors):  # I26, I27
    rows = IMAGES if isinstance(model, dict) and model["type"] in {"cnn", "resnet"} else X
    dataset = {"type": "arrays", "X": rows[:200], "y": Y[task][:200], "task": task}
    training = {} if "estimator" in model else {"epochs": 1}
    trainer = tiny(dataset, model, training, preprocessors=preprocessors, tracking={"log_figures": False})
    trainer.train()
    torch.set_num_threads(1)
    expected = answer(trainer, rows)
    order = np.random.default_rng(1).permutation(len(rows))

    for count in (1, 2, 4):
        torch.set_num_threads(count)
        assert number_of_others(answer(trainer, rows), expected) == 0
        assert number_of_others(answer(trainer, rows[order]), expected[order]) == 0
        for size in SIZES:
            few = rows[: 40 * size]
            parts = [answer(trainer, few[start : start + size]) for start in range(0, len(few), size)]
            assert number_of_others(np.concatenate(parts), expected[: len(few)]) == 0, (count, size)
        assert torch.get_num_threads() == count


def test_what_need_not_be_exact_is_what_the_module_gives(tiny):
    trainer = tiny({"type": "arrays", "X": X, "y": Y["multiclass"]}, mlp(64, 64), tracking={"log_figures": False})
    trainer.train()
    module = trainer._predictor.learner.module

    with torch.inference_mode():
        expected = module(torch.from_numpy(X[:1])).softmax(dim=1).numpy()

    assert trainer.predict_proba(X[:1], exact=False).tobytes() == expected.tobytes()
    assert trainer.predict(X, exact=False).tolist() == trainer.predict(X).tolist()


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A network for the arrays."""
    trainer = Trainer(
        dataset={"dataset": {"type": "arrays", "X": X, "y": Y["multiclass"]}, "preprocessors": ["standard_scaler"]},
        model={"model": mlp(24, 24), "training": {"epochs": 1}},
        tracking={"root": str(tmp_path_factory.mktemp("scaled")), "log_figures": False},
    )
    trainer.train()
    return trainer


def test_threads_that_predict_at_once_give_the_same_bits(scaled, threads):  # I28
    torch.set_num_threads(4)
    parts = [X[:1], X[5:12], X[:300], X]
    expected = [scaled.predict_proba(rows).tobytes() for rows in parts]
    start = threading.Barrier(8)

    def ask(thread: int) -> set[int]:
        start.wait()
        for call in range(100):
            which = (thread + call) % 4 if call % 10 == 0 else (thread + call) % 3
            assert scaled.predict_proba(parts[which]).tobytes() == expected[which]
        return {torch.get_num_threads()}

    with ThreadPoolExecutor(8) as pool:
        counts = set().union(*pool.map(ask, range(8)))

    assert counts == {4}  # also in threads that used torch for the first time while others predicted
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 4


FORKS = """
import multiprocessing, os, sys
import numpy as np, torch
import user_code
from gymtrain import Trainer

def ask(size):
    return [trainer.predict_proba(X[:size]).tobytes() for trainer in trainers]

torch.set_num_threads(2)
trainers = [Trainer.load(path) for path in sys.argv[2:]]
X = np.load(sys.argv[1])
if __name__ == "__main__":
    torch.randn(500, 500) @ torch.randn(500, 500)  # torch has its threads now, which a fork does not have
    sizes = [len(X), 1, 300]
    expected = [ask(size) for size in sizes]
    for method, processes in {"fork": 3, "spawn": 1}.items():
        for _ in range(processes):
            with multiprocessing.get_context(method).Pool(processes) as pool:
                assert pool.map_async(ask, sizes).get(timeout=120) == expected, method
    for _ in range(10):
        child = os.fork()
        if child == 0:
            os._exit(0 if ask(len(X)) == expected[0] else 1)
        assert os.waitpid(child, 0)[1] == 0
    assert torch.get_num_threads() == 2
    print("done")
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_processes_that_are_forked_or_spawned_after_a_prediction_give_the_same_bits(tiny, tmp_path):  # I29
    (tmp_path / "forks.py").write_text(FORKS)
    np.save(tmp_path / "X.npy", X)
    bundles = []
    models = {
        "ready": mlp(24, 24),
        "own": {"type": "user_net", "width": 64},
        "estimator": sklearn("LogisticRegression"),
    }
    for name, model in models.items():
        training = {"epochs": 1} if name != "estimator" else {}
        trainer = tiny(
            {"type": "arrays", "X": X[:100], "y": Y["multiclass"][:100]},
            model,
            training,
            preprocessors=["standard_scaler", transformer("PCA", n_components=5)],
        )
        trainer.train()
        bundles.append(str(tmp_path / f"{name}.zip"))
        trainer.save(bundles[-1])

    command = [sys.executable, str(tmp_path / "forks.py"), str(tmp_path / "X.npy"), *bundles]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)

    assert done.stdout == "done\n", done.stderr


MEMORY = """
import sys
from pathlib import Path
import numpy as np
from gymtrain import Trainer

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

def growth(act):
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    kept = act()
    return peak() - before - kept / 2**20

trainer = Trainer.load(sys.argv[1])
rows = np.random.default_rng(0).normal(size=(1_000_000, 16)).astype(np.float32)
trainer.predict_proba(rows[:100_000])
next(trainer.predict_blocks(sys.argv[2]))  # loads pyarrow
print(growth(lambda: trainer.predict_proba(rows).nbytes))
print(growth(lambda: trainer.predict(rows).nbytes))
blocks = (np.random.default_rng(seed).normal(size=(10_000, 16)) for seed in range(100))
print(growth(lambda: sum(len(each) for each in trainer.predict_blocks(blocks)) * 0))
print(growth(lambda: sum(len(each) for each in trainer.predict_blocks(sys.argv[2])) * 0))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux forgets the peak of the memory")
def test_many_rows_need_the_memory_of_a_few(tiny, tmp_path):  # I30, I31
    rows = RANDOM.normal(size=(200, 16))
    trainer = tiny({"type": "arrays", "X": rows, "y": Y["multiclass"][:200]}, mlp(256, 256))
    trainer.train()
    trainer.save(tmp_path / "model.zip")
    part = pa.table({f"x{index}": RANDOM.normal(size=100_000) for index in range(16)})
    with pq.ParquetWriter(tmp_path / "rows.parquet", part.schema) as writer:
        for _ in range(10):
            writer.write_table(part, row_group_size=10_000)

    command = [sys.executable, "-c", MEMORY, str(tmp_path / "model.zip"), str(tmp_path / "rows.parquet")]
    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert max(map(float, done.stdout.split())) < 64, done.stdout


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """Learned from a frame with the columns age and city."""
    frame = pd.DataFrame({"age": np.arange(60.0), "city": ["Porto", "Braga", None] * 20, "y": ["no", "yes"] * 30})
    trainer = Trainer(
        dataset={"dataset": {"type": "dataframe", "data": frame, "target": "y"}},
        model={"model": mlp(8), "training": {"epochs": 1}},
        tracking={"root": str(tmp_path_factory.mktemp("named")), "log_figures": False},
    )
    trainer.train()
    return trainer


PEOPLE = pd.DataFrame({"city": ["Braga", "Lisboa", None, "Porto"] * 5, "age": np.arange(20.0), "note": "x"})


@pytest.mark.parametrize("form", ["csv", "parquet", "pandas", "polars", "arrow", "dict", "records", "iterator"])
def test_blocks_are_answered_as_all_rows_at_once(named, tmp_path, form):  # I31
    known = PEOPLE[["city", "age"]]
    PEOPLE.to_csv(tmp_path / "rows.csv", index=False)
    PEOPLE.to_parquet(tmp_path / "rows.parquet")
    source = {
        "csv": str(tmp_path / "rows.csv"),
        "parquet": tmp_path / "rows.parquet",
        "pandas": known,
        "polars": pl.from_pandas(known),
        "arrow": pa.Table.from_pandas(known),
        "dict": known.to_dict("list"),
        "records": known.to_dict("records"),
        "iterator": (known[start : start + 7] for start in (0, 7, 14)),
    }[form]

    answers = list(named.predict_blocks(source, proba=True, block_rows=7))

    assert [len(part) for part in answers] == [7, 7, 6]
    assert np.concatenate(answers).tobytes() == named.predict_proba(known).tobytes()


def test_blocks_without_rows_have_answers_without_rows(named):
    answers = list(named.predict_blocks(iter([PEOPLE[["age", "city"]][:0], {"age": [3.0], "city": ["Porto"]}])))

    assert [part.shape for part in answers] == [(0,), (1,)]
    assert list(named.predict_blocks(PEOPLE[:0])) == []


def test_a_block_is_read_when_its_answer_is_asked_for(scaled):
    read = []

    def blocks() -> Iterator[np.ndarray]:
        for start in range(3):
            read.append(start)
            yield X[start : start + 1]

    answers = scaled.predict_blocks(blocks())

    assert read == []
    next(answers)
    assert read == [0]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("rows.txt", r"'rows\.txt' ends in neither \.csv nor \.parquet nor \.pq; read it yourself, and give blocks"),
        ("none.csv", r"there is no file 'none\.csv'"),
        (3, r"got a int; expected the path of a file, rows, or an iterator over blocks of rows"),
        (None, r"got a NoneType; expected the path of a file"),
        ([X[:2], X[:2, :5]], r"got an array|the rows differ"),
        (iter([X[:2], X[:2, :5]]), r"in block 1, which begins with row 2: got an array of shape \(2, 5\); expected"),
    ],
    ids=range(6),
)
def test_what_holds_no_blocks_is_refused(scaled, source, message):
    with pytest.raises(InputError, match=message):
        list(scaled.predict_blocks(source))


def test_mistakes_in_the_arguments_are_told_before_the_first_block(tiny, scaled):
    trainer = tiny({"type": "arrays", "X": X[:50], "y": Y["regression"][:50]})
    trainer.train()

    with pytest.raises(TaskError, match=r"a regression has no probabilities"):
        trainer.predict_blocks(iter([]), proba=True)
    with pytest.raises(InputError, match=r"block_rows: got 0; expected a whole number from 1 to 2147483647"):
        scaled.predict_blocks(X, block_rows=0)


@pytest.mark.parametrize("source", [Path("rows.csv"), iter([X]), (row for row in X)], ids=["path", "iterator", "rows"])
def test_what_predict_does_not_take_is_what_predict_blocks_takes(scaled, source):
    with pytest.raises(
        InputError, match=r"expected an array, a frame or a list of rows; predict_blocks\(\) takes files"
    ):
        scaled.predict(source)


def test_a_frame_that_is_not_evaluated_yet_is_refused(named):
    with pytest.raises(InputError, match=r"got a LazyFrame, which is not evaluated yet; give what its collect\(\) ret"):
        named.predict(pl.LazyFrame({"age": [1.0], "city": ["Porto"]}))


class Capsule:
    """A table of a library that nobody knows, which speaks Arrow."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


def test_any_table_that_speaks_arrow_is_a_frame(named):
    known = PEOPLE[["city", "age"]]
    table = pa.Table.from_pandas(known)

    for rows in (Capsule(table), table.to_batches()[0]):
        assert named.predict_proba(rows).tobytes() == named.predict_proba(known).tobytes()
    (answered,) = named.predict_blocks(table.to_reader(), proba=True)
    assert answered.tobytes() == named.predict_proba(known).tobytes()
    with pytest.raises(InputError, match=r"got a Capsule that is no table of Arrow"):
        named.predict(Capsule(pa.chunked_array([[1.0, 2.0]])))


def test_a_row_that_does_not_fit_is_found_among_many(scaled):
    rows = np.concatenate([X] * 4)
    rows[9_000, 3] = np.nan

    with pytest.raises(
        InputError, match=r"among rows \d+ to \d+: X has missing values \(NaN\) in 1 rows, the first at"
    ):
        scaled.predict(rows)


def test_what_was_trained_on_a_gpu_predicts_on_the_cpu(scaled, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    scaled.save(tmp_path / "model.zip")
    forge = take_apart((tmp_path / "model.zip").read_bytes())
    spec = json.loads(forge.part("spec.json").content)
    spec["model"]["training"]["device"] = "cuda"
    (tmp_path / "cuda.zip").write_bytes(forge.replace("spec.json", json.dumps(spec).encode()).pack())

    with pytest.warns(
        UserWarning, match=r"was trained on 'cuda', which is not there; it predicts on the CPU"
    ) as warned:
        loaded = Trainer.load(tmp_path / "cuda.zip")

    assert len(warned) == 1
    assert loaded.predict_proba(X).tobytes() == scaled.predict_proba(X).tobytes()
