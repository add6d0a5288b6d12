from __future__ import annotations

import warnings
from itertools import product

import numpy as np
import pytest
import user_code

from gymtrain import Callback, GymtrainError


class CountSteps(Callback):
    def __init__(self) -> None:
        self.steps = 0

    def on_step_end(self, state):
        self.steps += 1


MODELS = [{"type": "mlp", "hidden": [4], "dropout": 0.5}, "user_code:Normed"]


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_few_rows_train_or_are_refused_before_the_first_step(tiny, task, accumulate):
    trained, refused = [], []
    for rows, batch_size, model in product([1, 2, 3, 9], [1, 2, 4, 100], MODELS):
        X, y = user_code.rows_of(task, max(rows, 2))
        data = {"type": "arrays", "X": X[:rows], "y": y[:rows], "task": task}
        training = {"epochs": 2, "batch_size": batch_size, "accumulate": accumulate}
        trainer = tiny(data, model, training, samples={"train": 1.0}, preprocessors=["standard_scaler"])
        count = CountSteps()

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"model\.training\.accumulate: Normed has batch norm")
            try:
                trainer.train([count])
            except GymtrainError:
                refused.append(count.steps)
            else:
                trained.append(trainer.predict(X) if task == "regression" else trainer.predict_proba(X))

    # What is refused is one class alone, and batch norm over a single row.
    assert len(refused) >= 8
    assert set(refused) == {0}
    assert len(trained) >= 16
    assert all(np.isfinite(predicted).all() for predicted in trained)


@pytest.mark.parametrize(
    "preprocessor",
    [
        "standard_scaler",
        "min_max_scaler",
        "tabular",
        {"type": "kbest", "k": 3},
        {"type": "sklearn", "transformer": "PCA", "n_components": 2},
        {"type": "sklearn", "transformer": "RobustScaler"},
    ],
    ids=lambda given: given if isinstance(given, str) else given.get("transformer", given["type"]),
)
def test_columns_that_are_constant_make_no_nan(tiny, preprocessor):
    X, y = user_code.rows_of("binary")
    X[:, 1], X[:, 2] = 7.0, 0.0
    trainer = tiny({"type": "arrays", "X": X, "y": y}, preprocessors=[preprocessor])

    trainer.train()

    assert np.isfinite(trainer.predict_proba(X)).all()
    X[:, 1], X[:, 2] = -7.0, 1e6  # constant no longer, when it comes to predict
    assert np.isfinite(trainer.predict_proba(X)).all()


def test_rows_that_are_all_the_same_train(tiny):
    X, y = np.full((20, 6), 3.0), np.arange(20) % 2
    trainer = tiny({"type": "arrays", "X": X, "y": y}, "user_code:Normed", preprocessors=["standard_scaler"])

    assert trainer.train()["status"] == "FINISHED"
    assert np.isfinite(trainer.predict_proba(X)).all()


def test_a_target_that_is_constant_trains(tiny):
    X, _ = user_code.rows_of("regression")
    training = {"epochs": 2, "metrics": ["r2", "mae"], "validation_split": 0.2}

    result = tiny({"type": "arrays", "X": X, "y": np.full(40, 2.5)}, training=training).train()

    assert result["status"] == "FINISHED"
    assert np.isfinite(result["metrics"]["val/loss"]).all()


@pytest.mark.parametrize("metric", ["accuracy", "f1", "auroc", "average_precision", "MatthewsCorrCoef", "CohenKappa"])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_one_class_among_the_validation_rows_ends_no_training(tiny, task, metric):
    X, y = user_code.rows_of(task)
    data = {"type": "arrays", "X": X, "y": np.sort(y), "task": task}
    training = {"epochs": 2, "metrics": [metric]}
    trainer = tiny(data, training=training, shuffle=False, samples={"train": 36, "val": 3, "test": 1})

    with warnings.catch_warnings():
        # torchmetrics tells that such a value has no meaning.
        warnings.filterwarnings("ignore", message=r"No (positive|negative) samples in targets|Average precision score")
        result = trainer.train()

    assert result["status"] == "FINISHED"
    assert len(result["metrics"][f"val/{metric}"]) == 2


def test_one_validation_row_is_enough_for_batch_norm(tiny):
    X, y = user_code.rows_of("multiclass")
    data = {"type": "arrays", "X": X, "y": y}

    result = tiny(data, "user_code:Normed", samples={"train": 38, "val": 1, "test": 1}).train()

    assert result["status"] == "FINISHED"
    assert len(result["metrics"]["val/loss"]) == 1
