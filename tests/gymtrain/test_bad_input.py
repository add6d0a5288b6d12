from __future__ import annotations

import os
import resource
import subprocess

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
import torch
import user_code
from bundle_forge import take_apart

import gymtrain
from gymtrain import (
    BundleError,
    DataError,
    GymtrainError,
    InputError,
    NonFiniteLossError,
    NotTrainedError,
    SaveError,
    SpecError,
    TaskError,
    Trainer,
    TrainingError,
)

X, Y = user_code.rows_of("binary")


def arrays(**changes):
    return {"type": "arrays", "X": X, "y": Y, **changes}


# The specs.


def trainer_of(dataset="iris", model="linear", training=None, tracking=None, **fields):
    return Trainer(
        dataset={"dataset": dataset, **fields}, model={"model": model, "training": training or {}}, tracking=tracking
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "iriss"}, r"dataset\.dataset\.type: 'iriss' is not a registered dataset; did you mean 'iris'\?"),
        ({"dataset": {"typ": "iris"}}, r"dataset\.dataset\.type: missing; name the dataset"),
        ({"dataset": None}, r"dataset\.dataset: got None; expected a name or a dict such as \{'type': 'digits'\}"),
        ({"dataset": 3}, r"dataset\.dataset: got 3; expected a name or a dict such as"),
        ({"dataset": {"type": 3}}, r"dataset\.dataset\.type: got 3; expected a name such as 'digits', or a class"),
        ({"dataset": {"type": "digits", "image": True}}, r"dataset\.dataset\.image: unknown key; did you mean 'image"),
        (
            {"dataset": {"type": "digits", "images": "yes"}},
            r"dataset\.dataset\.images: got 'yes'; expected true or false",
        ),
        ({"dataset": {"type": "csv", "target": "y"}}, r"dataset\.dataset\.path: missing; expected text"),
        ({"dataset": "nowhere.at.all:Data"}, r"dataset\.dataset\.type: 'nowhere\.at\.all:Data': .*'nowhere\.at\.all'"),
        ({"dataset": "user_code:Rowss"}, r"dataset\.dataset\.type: .* has no 'Rowss'; did you mean 'Rows'\?"),
        ({"dataset": arrays(task="ranking")}, r"dataset\.dataset\.task: got 'ranking'; expected 'binary', "),
        ({"samples": {"train": 0.8, "test": 0.4}}, r"dataset\.samples: train \+ test is 1\.2, more than the whole"),
        ({"samples": {"train": 1.5}}, r"dataset\.samples\.train: got 1\.5; expected a fraction from 0\.0 to 1\.0"),
        ({"samples": {"train": -5}}, r"dataset\.samples\.train: got -5; expected a number of rows of at least 0"),
        ({"samples": {"train": 0}}, r"dataset\.samples: the train part is empty"),
        ({"samples": {"train": "most"}}, r"dataset\.samples\.train: got 'most'; expected a fraction such as 0\.2"),
        ({"samples": {"train": True}}, r"dataset\.samples\.train: got True; expected a fraction"),
        ({"samples": {"trian": 0.5}}, r"dataset\.samples\.trian: unknown key; did you mean 'train'\?"),
        ({"samples": {"stratify": True, "group_by": "a"}}, r"stratify and group_by cannot both hold"),
        ({"samples": [0.8, 0.2]}, r"dataset\.samples: got \[0\.8, 0\.2\]; expected a dict"),
        ({"preprocessors": "standard_scaler"}, r"dataset\.preprocessors: got 'standard_scaler'; expected a list"),
        (
            {"preprocessors": ["standard_scaler", "pca", {"type": "divide", "factor": "a"}]},
            r"preprocessors\[1\]\.type: 'pca' is not.*\n.*preprocessors\[2\]\.factor: got 'a'; expected",
        ),
        (
            {"preprocessors": [{"type": "divide", "factor": 0.0}]},
            r"preprocessors\[0\].*: factor is 0; expected another",
        ),
        ({"preprocessors": [{"type": "sklearn", "transformer": "PCB"}]}, r"transformer: scikit-learn has no public"),
        ({"data_augmentors": ["flipp"]}, r"dataset\.data_augmentors\[0\]\.type: 'flipp' .* did you mean 'flip'\?"),
        ({"seed": -1}, r"dataset\.seed: got -1; expected"),
        ({"seed": 1.5}, r"dataset\.seed: got 1\.5; expected"),
        ({"shuffle": "no"}, r"dataset\.shuffle: got 'no'; expected"),
        ({"chunk_size": 0}, r"dataset\.chunk_size: got 0; expected"),
        ({"shufle": True}, r"dataset\.shufle: unknown key; did you mean 'shuffle'\?"),
        ({"model": "mpl"}, r"model\.model\.type: 'mpl' is not a registered model; did you mean 'mlp'\?"),
        ({"model": {"type": "mlp", "hidden": [0]}}, r"model\.model\.hidden.*: got 0; expected"),
        ({"model": {"type": "mlp", "hidden": 64}}, r"model\.model\.hidden: got 64; expected"),
        ({"model": {"type": "mlp", "dropout": 1.0}}, r"model\.model\.dropout: got 1\.0; expected"),
        ({"model": {"type": "mlp", "activation": "rel"}}, r"model\.model\.activation: got 'rel'; expected"),
        ({"model": {"type": "sklearn"}}, r"model\.model\.estimator: got None; expected a class of scikit-learn"),
        ({"model": {"type": "sklearn", "estimator": "Ridg"}}, r"no public class 'Ridg'; did you mean 'Ridge'"),
        (
            {"model": {"type": "sklearn", "estimator": "Ridge", "alpa": 1}},
            r"model\.model\.alpa: unknown key; did you mean 'alpha'\?",
        ),
        ({"model": lambda: None}, r"model\.model\.type: <lambda> is not found by its name in a later process"),
        ({"training": {"epochs": 0}}, r"model\.training\.epochs: got 0; expected"),
        ({"training": {"max_steps": 0}}, r"model\.training\.max_steps: got 0; expected"),
        ({"training": {"epochs": "10"}}, r"model\.training\.epochs: got '10'; expected"),
        ({"training": {"batch_sise": 8}}, r"model\.training\.batch_sise: unknown key; did you mean 'batch_size'\?"),
        ({"training": {"optimizer": "Adan"}}, r"model\.training\.optimizer\.type: 'Adan' is not a known optimizer"),
        ({"training": {"optimizer": {"type": "Adam", "lr": -1}}}, r"model\.training\.optimizer\.lr: got -1; expected"),
        ({"training": {"optimizer": {"type": "Adam", "rl": 1}}}, r"model\.training\.optimizer\.rl: unknown key; .*lr"),
        ({"training": {"loss": "crossentropi"}}, r"model\.training\.loss\.type: 'crossentropi'"),
        ({"training": {"metrics": "accuracy"}}, r"model\.training\.metrics: got 'accuracy'; expected a list"),
        ({"training": {"metrics": ["acuracy"]}}, r"model\.training\.metrics\[0\]\.type: 'acuracy' is not a known"),
        ({"training": {"metrics": ["f1", "f1"]}}, r"model\.training\.metrics: two values would be logged as 'f1'"),
        ({"training": {"validation_split": 1.0}}, r"model\.training\.validation_split: got 1\.0; expected"),
        ({"training": {"class_weight": {"a": -1}}}, r"model\.training\.class_weight\.a: got -1; expected a number"),
        ({"training": {"class_weight": "auto"}}, r"model\.training\.class_weight: got 'auto'; expected 'balanced'"),
        ({"training": {"monitor": "loss"}}, r"model\.training\.monitor: got 'loss'; expected 'auto', null, or"),
        ({"training": {"device": "gpu"}}, r"model\.training\.device: got 'gpu'; expected 'auto', 'cpu'"),
        (
            {"training": {"validation_split": 0.2}, "samples": {"val": 0.2}},
            r"model\.training\.validation_split: asks for validation rows, as dataset\.samples\.val",
        ),
        ({"tracking": {"trackers": ["mlfow"]}}, r"tracking\.trackers\[0\]\.type: 'mlfow' .* did you mean 'mlflow'"),
        ({"tracking": {"run_name": "a/b"}}, r"tracking\.run_name: got 'a/b'; expected a name without slashes"),
        ({"tracking": {"log_every_n_steps": -1}}, r"tracking\.log_every_n_steps: got -1; expected"),
        ({"tracking": {"on_error": "ignore"}}, r"tracking\.on_error: got 'ignore'; expected 'warn' or 'raise'"),
        ({"tracking": {"root": ""}}, r"tracking\.root: got ''; expected"),
        ({"tracking": "runs"}, r"tracking: got 'runs'; expected"),
    ],
    ids=lambda value: None if isinstance(value, str) else "",
)
def test_a_spec_that_cannot_be_meant_is_refused_when_the_trainer_is_made(arguments, message):
    with pytest.raises(SpecError, match=message):
        trainer_of(**arguments)


def test_all_faults_of_the_three_specs_are_told_at_once():
    with pytest.raises(SpecError, match="6 problems in the spec") as caught:
        trainer_of(
            {"type": "digits", "image": True},
            {"type": "mlp", "hiden": [3]},
            {"epochs": 0, "optimizer": "Adan"},
            {"roott": "runs"},
            samples={"train": 0.9, "test": 0.9},
        )

    paths = [fault.path for fault in caught.value.faults]
    assert paths == [
        "dataset.dataset.image",
        "dataset.samples",
        "model.model.hiden",
        "model.training.epochs",
        "model.training.optimizer.type",
        "tracking.roott",
    ]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ([], r"spec: got a list; expected a dict with the keys 'dataset', 'model' and 'tracking'"),
        (None, r"spec: got a NoneType; expected a dict"),
        ({}, r"dataset: missing.*\n.*model: missing"),
        ({"dataset": {}, "model": {}}, r"dataset\.dataset: missing.*\n.*model\.model: missing"),
        ({"dataset": {"dataset": "iris"}, "model": {"model": "mlp"}, "track": {}}, r"track: unknown key; did you mea"),
    ],
    ids=str,
)
def test_a_whole_spec_that_cannot_be_meant_is_refused(spec, message):
    with pytest.raises(SpecError, match=message):
        Trainer.from_dict(spec)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("{", "spec.json", r"spec\.json: cannot be read"),
        ("a: [", "spec.yaml", r"spec\.yaml: cannot be read"),
        ("[1, 2]", "spec.yaml", r"spec\.yaml: holds a list; expected dataset, model and tracking"),
        (b"\xff\xfe\x00", "spec.yaml", r"spec\.yaml: is no text; expected JSON or YAML"),
        ("", "spec.yaml", r"spec\.yaml: holds nothing; expected dataset, model and tracking"),
        ("dataset: {dataset: iris}", "spec.yaml", r"model: missing"),
    ],
)
def test_a_file_that_holds_no_spec_is_refused(tmp_path, content, name, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(SpecError, match=message):
        Trainer.from_file(path)


def test_a_spec_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.yaml"):
        Trainer.from_file(tmp_path / "missing.yaml")


# The data.

FRAME = pd.DataFrame({"age": [30.0, 40.0, 50.0, 20.0] * 5, "city": ["Porto", "Braga"] * 10, "ill": ["no", "yes"] * 10})


def with_value(value, row=3, dtype=float):
    changed = X.astype(dtype)
    changed[row, 1] = value
    return changed


def frame_of(**columns):
    return {"type": "dataframe", "data": FRAME.assign(**columns), "target": "ill"}


DATA = [
    (
        {"samples": {"train": 30, "test": 20}},
        r"dataset\.samples: train \(30\) \+ test \(20\) is 50 rows, and the .* 40",
    ),
    ({"samples": {"train": 0.001}}, r"dataset\.samples\.train: 0\.001 of 40 rows leaves the train part empty"),
    ({"samples": {"train": 0.9, "val": 0.001}}, r"dataset\.samples\.val: 0\.001 of 40 rows leaves the val part empty"),
    ({"dataset": arrays(y=Y[:30])}, r"X has 40 rows and y has 30; every row needs one target"),
    ({"dataset": arrays(X=X[:0], y=Y[:0])}, r"the dataset has no rows"),
    ({"dataset": arrays(X=X[:, :0])}, r"X has the shape \(40, 0\); there is no feature in it"),
    ({"dataset": arrays(X=X[:, 0])}, r"X has the shape \(40,\); expected \(rows, features\)"),
    ({"dataset": arrays(X=with_value(np.nan))}, r"X has missing values \(NaN\) in 1 rows, the first at row 3; fill"),
    ({"dataset": arrays(X=with_value(np.inf))}, r"X has infinite values in 1 rows, the first at row 3; remove them"),
    ({"dataset": arrays(X=with_value(-np.inf)), "preprocessors": ["tabular"]}, r"X has infinite values in 1 rows"),
    ({"dataset": arrays(X=with_value(1e300))}, r"after the preprocessors 1 rows of the train part hold NaN or infin"),
    ({"dataset": arrays(X=with_value("a", dtype=object))}, r"got the text 'a' at \(3, 1\) where a number belongs"),
    ({"dataset": arrays(X=X.astype(str))}, r"got values of type <U\d+; expected numbers"),
    ({"dataset": arrays(X=X.astype(complex))}, r"got values of type complex128; expected numbers"),
    ({"dataset": arrays(X=X.astype("datetime64[s]"))}, r"got values of type datetime64\[s\]; expected numbers"),
    ({"dataset": arrays(X=[[1.0, 2.0], [3.0]], y=[0, 1])}, r"the rows differ in length or shape"),
    ({"dataset": arrays(X=None)}, r"got None; expected an array, a frame or a list of rows"),
    ({"dataset": arrays(X="rows.csv")}, r"got 'rows\.csv'; expected an array, a frame or a list of rows"),
    ({"dataset": arrays(y=None)}, r"got None; expected|y has the shape \(\)"),
    ({"dataset": arrays(y=[[0, 1], [2]])}, r"differ in length"),
    ({"dataset": arrays(y=np.full(40, np.nan))}, r"y has missing or infinite values in 40 rows, the first at row 0"),
    ({"dataset": arrays(y=X[:, 0] * np.inf)}, r"y has missing or infinite values in 40 rows"),
    ({"dataset": arrays(y=X[:, 0] * 1e300)}, r"y holds numbers above 3\.4e38 in size, more than a float32 holds"),
    ({"dataset": arrays(y=[None, *Y[1:].tolist()])}, r"y has missing values in 1 rows, the first at row 0; remove"),
    ({"dataset": arrays(y=pd.Series([pd.NA, *Y[1:]], dtype="string"))}, r"y has missing values in 1 rows, the first"),
    ({"dataset": arrays(y=[1, *Y[1:].tolist()])}, r"y holds values of the types int, str|y has .*types"),
    ({"dataset": arrays(y=np.array([{}] * 40))}, r"y holds values of the types dict; expected numbers, booleans"),
    ({"dataset": arrays(y=X.astype("datetime64[s]")[:, 0])}, r"y holds values of type datetime64\[s\]"),
    ({"dataset": arrays(y=np.zeros((40, 2, 2)))}, r"y has the shape \(40, 2, 2\); expected \(rows,\) or \(rows, outp"),
    ({"dataset": arrays(y=np.zeros(40, dtype=int))}, r"the train part holds one class only, 0; there is nothing to"),
    ({"dataset": arrays(y=np.arange(40) % 3, task="binary")}, r"the task is binary, and the train part has 3 classes"),
    ({"dataset": arrays(task="regression")}, r"the train part: y holds text such as 'no'; a regression needs numbers"),
    ({"dataset": arrays(task="multilabel")}, r"a multilabel task needs y of shape \(rows, labels\); got \(40,\)"),
    ({"dataset": arrays(y=X[:, :2] > 2, task="binary")}, r"a binary task needs y of shape \(rows,\); got \(40, 2\)"),
    ({"dataset": arrays(y=X[:, :2], task="multilabel")}, r"y of a multilabel task has values other than 0 and 1"),
    ({"dataset": arrays(y=X[:, 0]), "one_hot": True}, r"dataset\.one_hot: a regression has no classes"),
    ({"dataset": arrays(y=X[:, 0]), "samples": {"stratify": True}}, r"stratify: a regression task has no classes"),
    ({"dataset": arrays(), "samples": {"group_by": "user"}}, r"group_by: there is no column 'user'; give the dataset"),
    (
        {"dataset": arrays(groups=[1, 2]), "samples": {"group_by": "groups"}},
        r"groups: got the shape \(2,\); expected \(",
    ),
    ({"dataset": frame_of(), "samples": {"group_by": "town"}}, r"there is no column 'town'; the columns are 'age', 'c"),
    ({"dataset": {**frame_of(), "target": "il"}}, r"target: there is no column 'il'; did you mean 'ill'\?; the colum"),
    (
        {"dataset": {"type": "dataframe", "data": X, "target": "y"}},
        r"dataset\.dataset\.data: got ndarray; expected a frame of pandas",
    ),
    ({"dataset": {**frame_of(), "data": FRAME[["ill"]]}}, r"no column beside the target; there is nothing to learn"),
    ({"dataset": {**frame_of(), "data": FRAME[:0]}}, r"the dataset has no rows"),
    ({"dataset": frame_of(age=np.inf)}, r"columns? 'age' holds? infinite values"),
    ({"dataset": frame_of(age=np.nan)}, r"columns? 'age' holds? no value in the train part; drop"),
    ({"dataset": frame_of(), "preprocessors": ["standard_scaler"]}, r"columns? 'city' holds? text where numbers are"),
    ({"dataset": frame_of(when=pd.Timestamp("2020-01-01"))}, r"column 'when' holds dates or durations; turn them into"),
    ({"dataset": frame_of(box=[[1]] * 20)}, r"column 'box' holds list values; expected numbers or text"),
    ({"dataset": frame_of(ill=[None, "yes"] * 10)}, r"y has missing values in 10 rows, the first at row 0"),
    (
        {"dataset": {**frame_of(), "data": pd.concat([FRAME, FRAME[["age"]]], axis=1)}},
        r"more than one column named 'ag",
    ),
    ({"preprocessors": [{"type": "kbest", "k": 7}]}, r"preprocessors\[0\] \(kbest\).*k is 7, and there are 6 features"),
    ({"preprocessors": ["user_code:Failing"]}, r"preprocessors\[0\] \(user_code:Failing\): .*does not like them"),
    (
        {"preprocessors": [{"type": "sklearn", "transformer": "PCA", "n_components": 9}]},
        r"preprocessors\[0\] \(sklearn\): .*n_components=9 must be between",
    ),
    ({"data_augmentors": ["flip"]}, r"Flip works on images, .*; got samples of shape \(6,\)"),
]


@pytest.mark.parametrize(("arguments", "message"), DATA, ids=range(len(DATA)))
def test_data_that_cannot_be_trained_on_is_refused(tiny, arguments, message):
    trainer = tiny(**{"dataset": arrays(), **arguments})

    with pytest.raises(DataError, match=message):
        trainer.train()
    assert trainer.result["status"] == "FAILED"


def test_labels_of_the_test_part_that_training_never_saw_are_named(tiny):
    data = arrays(y=["a"] * 20 + ["b"] * 18 + ["c", "d"])

    with pytest.raises(DataError, match=r"the test part: the labels 'c', 'd' are not among .*'a', 'b'; give the train"):
        tiny(data, shuffle=False).train()


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("none.csv", None, FileNotFoundError, r"none\.csv' is not there \(looked in .*\); expected a csv file"),
        ("bad.csv", "a,b\n1,2\n3\n", DataError, r"bad\.csv is not a csv file that can be read: .*Expected 2 columns"),
        ("bad.parquet", "a,b\n1,2\n", DataError, r"bad\.parquet is not a parquet file that can be read"),
        ("twice.csv", "a,a,y\n1,2,0\n3,4,1\n", DataError, r"more than one column named 'a'; rename them"),
        ("empty.csv", "", DataError, r"empty\.csv is not a csv file that can be read"),
        ("head.csv", "a,y\n", DataError, r"no rows"),
        ("other.csv", "a,b\n1,2\n", DataError, r"there is no column 'y'; the columns are 'a', 'b'"),
    ],
)
def test_a_file_that_cannot_be_trained_on_is_refused(tiny, tmp_path, name, content, error, message):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    data = {"type": path.suffix[1:], "path": str(path), "target": "y"}

    with pytest.raises(error, match=message):
        tiny(data).train()


@pytest.mark.parametrize(
    ("dataset", "training"),
    [
        ("diabetes", {"epochs": 3, "optimizer": {"type": "SGD", "lr": 1e30}}),
        (arrays(X=X * 1e30, y=X[:, 0] * 1e30), {"epochs": 1}),
        (arrays(X=np.full((40, 6), 3e38), y=X[:, 0]), {"epochs": 1, "optimizer": "SGD"}),
    ],
    ids=["step", "targets", "features"],
)
def test_a_loss_that_becomes_no_number_is_told_with_its_step_and_what_to_do(tiny, dataset, training):
    trainer = tiny(dataset, training=training)

    with pytest.raises(NonFiniteLossError, match=r"the loss became (nan|inf) at step \d+; try a smaller learning rate"):
        trainer.train()
    assert (trainer.result["status"], trainer.result["stop_reason"]) == ("FAILED", "nan")
    with pytest.raises(NotTrainedError):
        trainer.predict(X)


def test_a_spec_that_was_read_from_a_file_has_no_live_data(tiny):
    spec = tiny(arrays()).to_dict()

    with pytest.raises(
        DataError, match=r"dataset\.dataset\.X: the spec was read from a file, which holds the fingerpr"
    ):
        Trainer.from_dict(spec).train()


# The rows for predict and evaluate.


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """Learned from an array (rows, 6)."""
    trainer = Trainer(
        dataset={"dataset": arrays(), "preprocessors": ["standard_scaler"]},
        model={"model": "mlp", "training": {"epochs": 2}},
        tracking={"root": str(tmp_path_factory.mktemp("numbers"))},
    )
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Learned from a frame with the columns age and city."""
    trainer = Trainer(
        dataset={"dataset": frame_of()},
        model={"model": "mlp", "training": {"epochs": 2}},
        tracking={"root": str(tmp_path_factory.mktemp("people"))},
    )
    trainer.train()
    return trainer


F32 = X.astype(np.float32)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (X[:, :5], r"got an array of shape \(40, 5\); expected \(rows, 6\)"),  # I01
        (np.hstack([X, X]), r"got an array of shape \(40, 12\); expected \(rows, 6\)"),  # I02
        (X[0], r"got an array of shape \(6,\); expected \(rows, 6\); one row is X\.reshape\(1, -1\)"),  # I03
        (X[..., None], r"shape \(40, 6, 1\); expected \(rows, 6\); the values are as many: X\.reshape\(-1, 6\)"),  # I04
        (with_value(np.nan), r"X has missing values \(NaN\) in 1 rows, the first at row 3"),  # I05
        (with_value(np.inf), r"X has infinite values in 1 rows, the first at row 3"),  # I06
        (with_value(1e300), r"1 rows hold values that the preprocessors turn into NaN or infinity, the first is row 3"),
        (with_value("a", dtype=object), r"got the text 'a' at \(3, 1\) where a number belongs"),  # I13
        (with_value(None, dtype=object), r"X has missing values \(NaN\) in 1 rows"),
        (with_value(np.datetime64("2020"), dtype=object), r"got a datetime64 at \(3, 1\) where a number belongs"),
        ([["a"] * 6], r"got values of type <U1; expected numbers"),
        ([[1, 2], [3]], r"the rows differ in length or shape"),
        (5, r"got a single int\w*; expected \(rows, 6\)"),
        (None, r"got None; expected an array, a frame or a list of rows"),
        ("rows.csv", r"got 'rows\.csv'; expected an array"),
        (X.astype(complex), r"got values of type complex128; expected numbers"),
        ({"a": [1.0], "b": [2.0]}, r"got an array of shape \(1, 2\); expected \(rows, 6\)"),
        ({"a": [1.0], "b": [2.0, 3.0]}, r"the columns differ in length: \{'a': 1, 'b': 2\}"),
        ({f"x{i}": ["a"] for i in range(6)}, r"columns? .* text where numbers"),
        (object(), r"got .*; expected"),
        ([object()] * 2, r"got .*; expected"),
    ],
    ids=range(21),
)
@pytest.mark.parametrize("method", ["predict", "predict_proba", "evaluate"])
def test_rows_that_do_not_fit_an_array_are_refused(numbers, rows, message, method):
    arguments = (rows, Y) if method == "evaluate" else (rows,)

    with pytest.raises(InputError, match=message):
        getattr(numbers, method)(*arguments)


@pytest.mark.parametrize(
    "rows",
    [
        F32.astype(np.float64),  # I08
        F32.astype(">f4"),
        np.asfortranarray(F32),  # I11
        np.repeat(F32, 2, axis=0)[::2],
        F32.astype(object),  # I12
        F32.tolist(),  # I14
        (scipy.sparse.csr_matrix(F32)),  # I15
        torch.from_numpy(F32),  # I16
        torch.from_numpy(F32).requires_grad_(),
        pd.DataFrame(F32),  # I23
        pl.DataFrame(F32),
        pa.table({str(index): F32[:, index] for index in range(6)}),
        F32.view(np.ndarray),
    ],
    ids=range(13),
)
def test_rows_in_any_form_give_the_same_bits(numbers, rows):
    assert numbers.predict_proba(rows).tobytes() == numbers.predict_proba(F32).tobytes()


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint8", "bool", "float16"])
def test_rows_of_any_type_of_number_give_the_same_bits(numbers, dtype):  # I09, I10
    rows = X.astype(dtype)

    assert numbers.predict_proba(rows).tobytes() == numbers.predict_proba(rows.astype(np.float64)).tobytes()


def test_rows_that_must_not_be_written_to_are_not(numbers):
    rows = F32.copy()
    rows.flags.writeable = False

    assert numbers.predict_proba(rows).tobytes() == numbers.predict_proba(F32).tobytes()
    assert rows.tobytes() == F32.tobytes()


@pytest.mark.parametrize(
    "rows",
    [X[:0], [], pd.DataFrame(X[:0]), torch.zeros(0, 6), np.empty((0, 6), dtype=object)],
    ids=["array", "list", "frame", "tensor", "object"],
)
def test_no_rows_give_an_empty_answer_of_the_right_shape_and_type(numbers, rows):  # I07
    assert numbers.predict(rows).shape == (0,)
    assert numbers.predict(rows).dtype == numbers.predict(X).dtype
    assert numbers.predict_proba(rows).shape == (0, 2)
    assert numbers.predict_proba(rows).dtype == numbers.predict_proba(X).dtype


@pytest.mark.parametrize("task", ["regression", "regressions", "multilabel"])
@pytest.mark.parametrize("kind", ["torch", "sklearn"])
def test_no_rows_give_an_empty_answer_for_every_task(tiny, task, kind):
    estimator = "KNeighborsClassifier" if task == "multilabel" else "Ridge"
    model = "linear" if kind == "torch" else {"type": "sklearn", "estimator": estimator}
    trainer = tiny({"type": "user_rows", "task": task}, model, training={"epochs": 1} if kind == "torch" else {})
    trainer.train()

    empty, full = trainer.predict(X[:0]), trainer.predict(X)

    assert empty.shape == (0, *full.shape[1:])
    assert empty.dtype == full.dtype


PEOPLE = FRAME[["age", "city"]]


@pytest.mark.parametrize(
    "rows",
    [
        PEOPLE[["city", "age"]],  # I18
        PEOPLE.astype({"age": int}),
        PEOPLE.astype({"city": "category"}),
        PEOPLE.astype({"city": "string"}),
        PEOPLE.set_index(np.arange(20)[::-1]),
        pl.from_pandas(PEOPLE),
        pa.Table.from_pandas(PEOPLE),
        PEOPLE.to_dict("list"),
        PEOPLE.to_dict("records"),
        PEOPLE.to_numpy(),
        (PEOPLE.to_numpy().tolist()),
    ],
    ids=range(11),
)
def test_frames_of_any_kind_and_order_give_the_same_bits(people, rows):  # I17, I18, I23
    assert people.predict_proba(rows).tobytes() == people.predict_proba(PEOPLE).tobytes()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (PEOPLE[["age"]], r"the rows have no column 'city'; expected 'age', 'city', in any order"),  # I19
        (PEOPLE.rename(columns={"city": "town"}), r"the rows have no column 'city'"),  # I21
        (pd.concat([PEOPLE, PEOPLE[["age"]]], axis=1), r"more than one column named 'age'; rename them"),  # I22
        (PEOPLE.assign(age="old"), r"column 'age' holds text such as 'old'; it held numbers in training"),
        (PEOPLE.assign(city=3.0), r"column 'city' holds numbers such as 3; it held text in training"),
        (PEOPLE.assign(age=np.inf), r"columns? 'age' holds? infinite values; remove or replace them"),
        (PEOPLE.assign(age=pd.Timestamp("2020-01-01")), r"column 'age' holds dates or durations"),
        (
            PEOPLE.to_numpy()[:, :1],
            r"got an array of shape \(20, 1\); expected \(rows, 2\) with the columns 'age', 'ci",
        ),
        (PEOPLE.iloc[0].tolist(), r"got an array of shape \(2,\); expected \(rows, 2\)"),
        (np.zeros((2, 2)), r"column 'city' holds numbers such as 0; it held text in training"),
        (None, r"got None; expected an array, a frame or a list of rows"),
    ],
    ids=range(11),
)
def test_frames_that_do_not_fit_are_refused(people, rows, message):
    for method in (people.predict, people.predict_proba):
        with pytest.raises(InputError, match=message):
            method(rows)


def test_columns_that_training_did_not_have_are_left_out_with_a_warning(people):  # I20
    with pytest.warns(UserWarning, match=r"columns 'name' were not there in training and are left out"):
        probabilities = people.predict_proba(PEOPLE.assign(name="Ana"))
    assert probabilities.tobytes() == people.predict_proba(PEOPLE).tobytes()


def test_a_category_that_training_never_saw_counts_as_none_of_them(people):  # I24
    rows = pd.DataFrame({"age": [30.0, 30.0], "city": ["Lisboa", "Faro"]})

    first, second = people.predict_proba(rows)

    assert first.tolist() == second.tolist()


def test_missing_values_are_filled_where_training_filled_them(people):  # I05
    rows = pd.DataFrame({"age": [np.nan, 30.0], "city": ["Porto", None]})

    assert np.isfinite(people.predict_proba(rows)).all()


def test_no_rows_of_a_frame_give_an_empty_answer(people):
    for rows in (PEOPLE[:0], [], pl.from_pandas(PEOPLE)[:0], {"age": [], "city": []}):
        assert people.predict(rows).shape == (0,)
        assert people.predict_proba(rows).shape == (0, 2)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (Y[:30], r"evaluate: X has 40 rows and y has 30; every row needs one label"),
        (["maybe"] * 40, r"evaluate: the labels 'maybe' are not among those of the training data, 'no', 'yes'"),
        ([None] * 40, r"evaluate: y has missing values in 40 rows"),
        (None, r"evaluate: (got None|y has the shape \(\))"),
        (np.zeros((40, 2)), r"evaluate: y has the shape \(40, 2\); expected \(rows,\), a label for each row"),
        ([[0, 1], [1]], r"evaluate: .*differ in length"),
    ],
    ids=range(6),
)
def test_labels_that_do_not_fit_are_refused_by_evaluate(numbers, y, message):
    with pytest.raises(InputError, match=message):
        numbers.evaluate(X, y)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["a"] * 40, r"evaluate: y holds text such as 'a'; a regression needs numbers"),
        (X[:, :3], r"evaluate: y has the shape \(40, 3\); expected \(rows, 2\)"),
        (np.full((40, 2), np.nan), r"evaluate: y has missing or infinite values in 40 rows"),
    ],
    ids=range(3),
)
def test_targets_that_do_not_fit_are_refused_by_evaluate(tiny, y, message):
    trainer = tiny({"type": "user_rows", "task": "regressions"})
    trainer.train()

    with pytest.raises(InputError, match=message):
        trainer.evaluate(X, y if not isinstance(y, list) else np.array(y)[:, None].repeat(2, axis=1))


def test_no_rows_cannot_be_evaluated(numbers):
    with pytest.raises(InputError, match=r"evaluate: there are no rows to evaluate on"):
        numbers.evaluate(X[:0], Y[:0])


def test_probabilities_sum_to_one_and_the_most_probable_class_is_predicted(numbers, iris_trainer, flowers):  # I32
    for trainer, rows in ((numbers, X), (iris_trainer, flowers[0])):
        probabilities = trainer.predict_proba(rows)

        assert np.abs(probabilities.sum(axis=1) - 1).max() <= 1e-6
        assert ((probabilities >= 0) & (probabilities <= 1)).all()
        assert (trainer.predict(rows) == trainer.classes_[probabilities.argmax(axis=1)]).all()
        assert sorted(trainer.classes_.tolist()) == trainer.classes_.tolist()


def test_a_prediction_leaves_nothing_behind(tiny):  # I32
    trainer = tiny(arrays(), {"type": "mlp", "dropout": 0.5})
    trainer.train()
    module = trainer._predictor.learner.module
    module.train()
    torch.manual_seed(0), np.random.seed(0)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(0), np.random.seed(0)

    first, second = trainer.predict_proba(X), trainer.predict_proba(X)

    assert first.tobytes() == second.tobytes()
    assert not module.training
    assert not torch.from_numpy(first).requires_grad
    assert (torch.rand(1), np.random.rand()) == expected


# What asks for something that is not there.


@pytest.mark.parametrize("method", ["predict", "predict_proba", "evaluate", "save", "classes_", "features"])
def test_nothing_is_known_before_training(tiny, method):
    trainer = tiny()

    def ask():
        asked = getattr(trainer, method)
        asked(*{"evaluate": (X, Y), "save": ("model.zip",)}.get(method, (X,)))

    with pytest.raises(NotTrainedError, match=rf"{method}: this trainer has not learned anything yet; call train\(\)"):
        ask()


def test_a_training_that_learns_nothing_leaves_the_earlier_model_and_its_result(tiny, tmp_path):
    class Fail(gymtrain.Callback):
        def on_fit_model_begin(self, state):
            raise RuntimeError("now")

    trainer = tiny(arrays())
    trainer.train()
    before = trainer.predict(X).tolist()

    with pytest.raises(gymtrain.CallbackError, match="now"):
        trainer.train([Fail()])

    assert trainer.result["status"] == "FAILED"
    assert trainer.predict(X).tolist() == before
    trainer.save(tmp_path / "earlier.zip")
    assert gymtrain.inspect(tmp_path / "earlier.zip")["results"]["status"] == "FINISHED"


def test_a_regression_has_no_probabilities_and_no_classes(tiny):
    trainer = tiny({"type": "user_rows", "task": "regression"})
    trainer.train()

    with pytest.raises(TaskError, match=r"predict_proba: a regression has no probabilities; use predict\(\)"):
        trainer.predict_proba(X)
    with pytest.raises(TaskError, match=r"a regression has no classes"):
        trainer.classes_  # noqa: B018


def test_a_model_without_probabilities_says_so(tiny):
    trainer = tiny(arrays(), {"type": "sklearn", "estimator": "LinearSVC"}, training={})
    trainer.train()

    assert set(trainer.predict(X)) == {"no", "yes"}
    with pytest.raises(TaskError, match=r"predict_proba: this model gives classes and no probabilities; use predict"):
        trainer.predict_proba(X)


# Saving.


@pytest.fixture
def kept_file(tmp_path, iris_trainer):
    """A place with a good bundle in it, and its bytes."""
    path = tmp_path / "place" / "model.zip"
    path.parent.mkdir()
    iris_trainer.save(path)
    return path, path.read_bytes()


def test_saving_onto_a_directory_is_refused(iris_trainer, tmp_path):
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        iris_trainer.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_saving_into_a_directory_that_is_not_there_is_refused(iris_trainer, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No such directory; create it first"):
        iris_trainer.save(tmp_path / "missing" / "model.zip")
    assert list(tmp_path.iterdir()) == []


def test_saving_where_nothing_can_be_written_leaves_the_old_file(iris_trainer, kept_file):
    path, before = kept_file
    bound = subprocess.run(["mount", "--bind", "-o", "ro", path.parent, path.parent], capture_output=True)
    if bound.returncode:
        path.parent.chmod(0o500)
        if os.access(path.parent, os.W_OK):
            pytest.skip("as root and without mount, every place can be written")
    try:
        with pytest.raises(OSError, match=r"model\.zip"):
            iris_trainer.save(path)
    finally:
        if bound.returncode == 0:
            subprocess.run(["umount", path.parent], check=True)
        path.parent.chmod(0o700)

    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_disk_that_is_full_leaves_the_old_file(iris_trainer, kept_file):
    path, before = kept_file
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r"model\.zip"):
            iris_trainer.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_root_that_cannot_be_written_is_named_before_anything_is_loaded(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    trainer = tiny(tracking={"root": str(tmp_path / "file")})

    with pytest.raises(TrainingError, match=r"tracking\.root: cannot write to '.*file/iris/.*; give another root"):
        trainer.train()


# Loading.


def test_a_bundle_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.zip"):
        Trainer.load(tmp_path / "missing.zip")


def test_a_directory_is_no_bundle(tmp_path):
    with pytest.raises((BundleError, IsADirectoryError), match=str(tmp_path)):
        Trainer.load(tmp_path)


def changed_byte(data):
    position = data.index(b"weights.safetensors") + 500
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: b"", "not_a_bundle"),
        (lambda data: b"not a zip at all", "not_a_bundle"),
        (lambda data: data[: len(data) // 2], None),
        (lambda data: data[:-1], None),
        (lambda data: take_apart(data).set_manifest(format_version=2).pack(), "version"),
        (changed_byte, None),
        (lambda data: take_apart(data).add("evil.pkl", b"cos\nsystem\n").pack(), "member_unexpected"),
        (lambda data: take_apart(data).remove("weights.safetensors").pack(), None),
    ],
    ids=["empty", "text", "half", "cut", "newer", "byte", "pickle", "no weights"],
)
def test_what_is_no_whole_bundle_is_refused(kept_file, change, reason):
    path, data = kept_file
    path.write_bytes(change(data))

    with pytest.raises(BundleError, match=r"model\.zip") as caught:
        Trainer.load(path)
    assert reason is None or caught.value.reason == reason


def test_one_name_is_enough_of_a_list_of_trusted_ones(tiny, tmp_path):
    trainer = tiny(model={"type": "user_module:Untrusted"})
    trainer.train()
    trainer.save(tmp_path / "model.zip")

    assert Trainer.load(tmp_path / "model.zip", trust="user_module:Untrusted").classes_.tolist() == [0, 1, 2]


def test_every_error_of_ours_is_caught_by_one_name():
    errors = [getattr(gymtrain, name) for name in gymtrain.__all__ if name.endswith("Error")]

    assert all(issubclass(error, GymtrainError) for error in errors)
    assert len(errors) >= 12


@pytest.mark.parametrize("trust", [None, 5, [5], ["user_net"], [""], "user_code:Net; os", ["user_code:"]])
def test_what_is_no_list_of_trusted_names_is_refused(tmp_path, iris_trainer, trust):
    iris_trainer.save(tmp_path / "iris.zip")

    with pytest.raises(SpecError, match=r"1 problem in the arguments:\n  trust: got .*; expected a list such as"):
        Trainer.load(tmp_path / "iris.zip", trust=trust)


@pytest.mark.parametrize("path", [None, 5, "", "a\0b"])
def test_what_is_no_path_is_refused(iris_trainer, path):
    for act, error in [(iris_trainer.save, SaveError), (Trainer.load, BundleError), (Trainer.from_file, SpecError)]:
        with pytest.raises(error, match=r"expected the path of a file"):
            act(path)


@pytest.mark.parametrize("exact", [None, "no", 1])
def test_a_flag_of_a_prediction_is_true_or_false(iris_trainer, exact):
    rows = np.zeros((1, 4))
    uses = [
        iris_trainer.predict,
        iris_trainer.predict_proba,
        lambda X, exact: iris_trainer.predict_blocks(X, proba=exact),
    ]

    for use in uses:
        with pytest.raises(InputError, match=rf"(exact|proba): got {exact!r}; expected True or False"):
            use(rows, exact=exact)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[10**400, 1, 1, 1]], r"a whole number that is too large for a float"),
        (torch.zeros(1, 4, device="meta"), r"a tensor of the device 'meta', which has no values"),
    ],
)
def test_numbers_that_are_none_are_refused(iris_trainer, rows, message):
    with pytest.raises(InputError, match=message):
        iris_trainer.predict(rows)


def test_a_whole_number_that_no_float_holds_is_refused_in_a_frame(people):
    row = {"age": 10**400, "city": "Bern"}

    with pytest.raises(InputError, match=r"column 'age' holds a whole number that is too large for a float64"):
        people.predict([row])


@pytest.mark.parametrize("key", ["sign_with", "signed_by"])
def test_a_key_whose_path_is_none_is_refused(iris_trainer, tmp_path, key):
    iris_trainer.save(tmp_path / "iris.zip")
    use = iris_trainer.save if key == "sign_with" else Trainer.load

    with pytest.raises(
        SpecError, match=rf"1 problem in the arguments:\n  {key}: got 'a\\x00b'; expected the path of a key"
    ):
        use(tmp_path / "iris.zip", **{key: "a\0b"})


def test_rows_without_a_group_are_refused(tiny):
    trainer = tiny({**arrays(), "groups": ["a", None] * 20}, samples={"group_by": "groups"})

    with pytest.raises(DataError, match=r"dataset\.dataset\.groups: 20 rows have no group, the first is row 1"):
        trainer.train()


def test_what_is_masked_is_missing(tiny):
    trainer = tiny({"type": "arrays", "X": np.ma.masked_array(X, X > 1), "y": arrays()["y"]})

    with pytest.raises(DataError, match=r"X has missing values \(NaN\)"):
        trainer.train()


def test_a_spec_that_holds_itself_is_refused():
    itself = {}
    itself["dataset"] = itself

    with pytest.raises(SpecError, match=r"spec: it holds itself, or is nested too deeply"):
        Trainer.from_dict({"dataset": itself, "model": {"model": "linear"}})


def test_a_function_is_no_dataset():
    with pytest.raises(SpecError, match=r"system is a function; a dataset is a class"):
        Trainer(dataset={"dataset": {"type": "os:system", "command": "true"}}, model={"model": "linear"})


def test_a_model_that_says_other_than_the_data_is_refused(tiny):
    with pytest.raises(SpecError, match=r"model\.model\.output_size: got 5; the data needs 3; leave it out"):
        tiny(model={"type": "linear", "output_size": 5}).train()
