from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from user_code import rows_of

from gymtrain import Callback, Trainer, TrainingError
from gymtrain.training.state_tree import flatten, unflatten


class Stop(Callback):
    """Ends a training as a signal would, at the beginning of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.seen = 0

    def on_epoch_begin(self, state):
        if state.epoch == self.epoch:
            raise KeyboardInterrupt

    def on_epoch_end(self, state):
        self.seen += 1

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def interrupted(tiny, epoch: int = 4, **training: Any) -> tuple[Trainer, Path]:
    """Return a trainer that was interrupted at the beginning of an epoch, and where its checkpoints are."""
    trainer = tiny(training={"epochs": 5, "checkpoint": {}, **training})
    with pytest.raises(KeyboardInterrupt):
        trainer.train([Stop(epoch)])
    return trainer, Path(trainer.result["run"]["checkpoint_dir"])


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return list(trainer._predictor.learner.module.state_dict().values())


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "RMSprop", "Adadelta", {"type": "SGD", "momentum": 0.9}])
def test_every_kind_of_optimizer_goes_on_exactly(tiny, optimizer):
    whole = tiny(training={"epochs": 5, "optimizer": optimizer})
    whole.train()
    _, checkpoints = interrupted(tiny, optimizer=optimizer)

    resumed = tiny(training={"epochs": 5, "optimizer": optimizer, "checkpoint": {}})
    result = resumed.train(resume=checkpoints)

    assert all(torch.equal(one, other) for one, other in zip(weights(whole), weights(resumed), strict=True))
    assert result["metrics"] == whole.result["metrics"]


def test_callbacks_go_on_where_they_were(tiny):
    trainer, checkpoints = interrupted(tiny)
    callback = Stop(99)

    trainer.train([callback], resume=checkpoints)

    assert callback.seen == 5


def test_the_newest_checkpoints_are_kept_and_named_by_epoch_and_step(tiny):
    _, checkpoints = interrupted(tiny, checkpoint={"keep_last": 2})

    assert [path.name for path in sorted(checkpoints.iterdir())] == [
        "epoch-000002-step-000000008.zip",
        "epoch-000003-step-000000012.zip",
    ]


def test_a_checkpoint_predicts_like_any_bundle(tiny, flowers):
    _, checkpoints = interrupted(tiny)

    loaded = Trainer.load(max(checkpoints.iterdir()))

    assert loaded.predict(flowers[0]).shape == (150,)


def test_a_damaged_checkpoint_is_warned_of_and_the_one_before_it_is_taken(tiny):
    trainer, checkpoints = interrupted(tiny)
    newest = max(checkpoints.iterdir())
    newest.write_bytes(newest.read_bytes()[:-100])

    with pytest.warns(UserWarning, match=r"resume: .*; it is passed over"):
        result = trainer.train(resume="auto")

    assert result["resumed_from"].endswith("epoch-000002-step-000000008.zip")
    assert len(result["metrics"]["train/loss"]) == 5


def test_auto_begins_where_there_is_no_checkpoint_that_fits(tiny):
    interrupted(tiny)

    result = tiny(model="mlp", training={"epochs": 2}).train(resume="auto")

    assert result["resumed_from"] is None
    assert len(result["metrics"]["train/loss"]) == 2


def test_auto_says_what_differs_where_the_model_and_the_data_are_the_same(tiny):
    interrupted(tiny)

    with pytest.warns(UserWarning, match=r"the training begins anew; .*training/batch_size \(32 -> 64\)"):
        tiny(training={"epochs": 2, "batch_size": 64}).train(resume="auto")


def test_a_training_that_was_over_is_not_trained_again(tiny):
    trainer = tiny(training={"epochs": 3, "checkpoint": {}})
    before = trainer.train()
    again = tiny(training={"epochs": 3, "checkpoint": {}})
    stop = Stop(1)

    after = again.train([stop], resume="auto")

    assert after["metrics"] == before["metrics"]
    assert all(torch.equal(one, other) for one, other in zip(weights(trainer), weights(again), strict=True))


def test_a_training_that_stopped_early_is_not_trained_on(tiny):
    training = {"epochs": 50, "validation_split": 0.2, "early_stopping": {"patience": 1, "min_delta": 0.5}}
    before = tiny(training={**training, "checkpoint": {}}).train()

    after = tiny(training={**training, "checkpoint": {}}).train(resume="auto")

    assert before["stop_reason"] == after["stop_reason"] == "early_stopping"
    assert after["metrics"] == before["metrics"]


def test_more_patience_goes_on_with_a_training_that_stopped_early(tiny):
    training = {"epochs": 6, "validation_split": 0.2, "checkpoint": {}}
    tiny(training={**training, "early_stopping": {"patience": 0, "min_delta": 0.5}}).train()

    result = tiny(training={**training, "early_stopping": {"patience": 99}}).train(resume="auto")

    assert result["stop_reason"] == "epochs"
    assert len(result["metrics"]["val/loss"]) == 6


def test_a_metric_that_is_no_number_is_no_obstacle_to_a_checkpoint(tiny):
    training = {"epochs": 3, "metrics": ["r2"], "checkpoint": {}}
    dataset, samples = {"type": "user_rows", "task": "regression"}, {"train": 30, "val": 1, "test": 9}
    whole = tiny(dataset, training=training, samples=samples).train()

    again = tiny(dataset, training={**training, "epochs": 4}, samples=samples).train(resume="auto")

    assert whole["metrics"]["val/r2"] == [None] * 3
    assert again["metrics"]["val/r2"] == [None] * 4


def test_more_epochs_are_trained_after_a_resume(tiny):
    whole = tiny(training={"epochs": 7})
    whole.train()
    tiny(training={"epochs": 4, "checkpoint": {}}).train()

    longer = tiny(training={"epochs": 7, "checkpoint": {}})
    longer.train(resume="auto")

    assert all(torch.equal(one, other) for one, other in zip(weights(whole), weights(longer), strict=True))


def test_another_model_is_refused_with_what_differs(tiny):
    _, checkpoints = interrupted(tiny)

    with pytest.raises(TrainingError, match=r"is of another training: training/batch_size \(32 -> 16\); only epochs"):
        tiny(training={"epochs": 5, "batch_size": 16}).train(resume=checkpoints)


def test_other_rows_are_refused(tiny, tmp_path):
    X, y = rows_of("binary")
    table = tmp_path / "rows.csv"
    for shift in (0.0, 1.0):
        np.savetxt(table, np.column_stack([X + shift, y == "yes"]), delimiter=",", header="a,b,c,d,e,f,y", comments="")
        trainer = tiny(
            {"type": "csv", "path": str(table), "target": "y", "task": "binary"},
            training={"epochs": 2, "checkpoint": {}},
        )
        if not shift:
            trainer.train()

    with pytest.raises(TrainingError, match="resume: the rows of the train part are not those"):
        trainer.train(resume="auto")


@pytest.mark.parametrize(
    ("resume", "message"),
    [
        ("nowhere.zip", r"resume: there is no 'nowhere.zip'"),
        (True, r"resume: got True; expected 'auto', the path of a checkpoint or of a run, or False"),
        (3, r"resume: got 3; expected 'auto'"),
    ],
)
def test_what_is_no_checkpoint_is_refused(tiny, resume, message):
    with pytest.raises(TrainingError, match=message):
        tiny().train(resume=resume)


def test_a_bundle_that_is_no_checkpoint_is_refused(tiny, tmp_path):
    trainer = tiny()
    trainer.train()
    trainer.save(tmp_path / "model.zip")

    with pytest.raises(TrainingError, match=r"that can be read\n  resume: .*is no checkpoint"):
        trainer.train(resume=tmp_path / "model.zip")


def test_a_run_moved_elsewhere_is_resumed_by_its_directory(tiny, tmp_path):
    trainer, checkpoints = interrupted(tiny)
    shutil.move(checkpoints.parent, tmp_path / "moved")

    result = trainer.train(resume=tmp_path / "moved")

    assert Path(result["resumed_from"]).is_relative_to(tmp_path / "moved")


LEAVES = (
    st.none()
    | st.booleans()
    | st.sampled_from([math.inf, -math.inf])
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
)
TREES = st.recursive(
    LEAVES | st.lists(st.floats(width=32, allow_nan=False), max_size=4).map(torch.tensor),
    lambda trees: (
        st.lists(trees, max_size=4)
        | st.dictionaries(st.text(max_size=4) | st.integers(0, 99), trees, max_size=4)
        | st.tuples(trees, trees)
    ),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other) and one.dtype == other.dtype
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@given(TREES)
def test_a_state_of_any_shape_comes_back_as_it_was(tree):
    flat, tensors = flatten(tree)

    assert same(unflatten(json.loads(json.dumps(flat)), tensors), tree)


def test_a_state_that_a_checkpoint_cannot_hold_is_refused():
    with pytest.raises(TypeError, match=r"optimizer/0 is a set; a checkpoint holds numbers, text and tensors"):
        flatten({"optimizer": [{1, 2}]})
