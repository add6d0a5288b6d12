from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from user_code import Interrupt

from gymtrain import Callback, SpecError, Trainer
from gymtrain.training.checkpointing import ModelCheckpoint
from gymtrain.training.monitoring import LearningRateMonitor, Timing
from gymtrain.training.stopping import TimeLimit

PARTS = {"train": 90, "val": 30, "test": 30}


# Checkpoints.


def names(result: dict[str, Any]) -> list[str]:
    return sorted(path.name for path in Path(result["run"]["checkpoint_dir"]).iterdir())


def test_checkpoints_are_written_after_so_many_steps_also_within_an_epoch(tiny):
    training = {"epochs": 2, "batch_size": 30, "checkpoint": {"every_steps": 2, "keep_last": 9}}

    result = tiny(training=training, samples={"train": 90, "test": 60}).train()

    assert names(result) == [
        "epoch-000001-step-000000002.zip",
        "epoch-000002-step-000000004.zip",
        "epoch-000002-step-000000006.zip",
    ]


def test_checkpoints_are_written_after_so_many_minutes(tiny):
    training = {"max_steps": 3, "checkpoint": {"every_minutes": 1e-9, "keep_last": 9}}

    result = tiny(training=training).train()

    assert names(result) == [f"epoch-000001-step-00000000{step}.zip" for step in (1, 2, 3)]
    slow = tiny(training={"max_steps": 3, "checkpoint": {"every_minutes": 1000}}).train()
    assert not Path(slow["run"]["checkpoint_dir"]).exists()


def test_the_best_checkpoints_are_kept_beside_the_last_and_named_by_their_value(tiny, flowers):
    training = {
        "epochs": 6,
        "optimizer": {"type": "SGD", "lr": 0.05},
        "schedule": {"type": "switch", "values": {"3": 5.0}},
        "checkpoint": {"keep_last": 1, "keep_best": 2},
    }

    trainer = tiny(training=training, samples=PARTS)
    result = trainer.train()

    losses = result["metrics"]["val/loss"]
    best = sorted(range(6), key=losses.__getitem__)[:2]
    assert sorted(best) != [4, 5]
    assert names(result) == [
        f"epoch-{epoch + 1:06d}-step-{3 * (epoch + 1):09d}-val_loss={losses[epoch]:.6g}.zip"
        for epoch in sorted({*best, 5})
    ]
    loaded = Trainer.load(Path(result["run"]["checkpoint_dir"]) / names(result)[sorted({*best, 5}).index(best[0])])
    assert loaded.predict_proba(flowers[0]).tobytes() == trainer.predict_proba(flowers[0]).tobytes()


def test_of_a_metric_of_which_more_is_better_the_largest_are_kept(tiny):
    training = {"epochs": 5, "monitor": "val/accuracy", "checkpoint": {"keep_last": 1, "keep_best": 1}}

    result = tiny(training=training, samples=PARTS).train()

    best = f"{max(result['metrics']['val/accuracy']):.6g}"
    assert any(name.endswith(f"-val_accuracy={best}.zip") for name in names(result))


def test_a_callback_asks_for_checkpoints_and_logs_and_adds_metrics(kept):
    class Asking(Callback):
        def on_step_end(self, state):
            state.log("twice", 2 * state.step)
            if state.step == 2:
                state.checkpoint()

        def on_epoch_end(self, state):
            state.metrics["own/value"] = state.epoch / 2

    trainer, recorded = kept(training={"epochs": 2, "batch_size": 60, "checkpoint": {"every_epochs": 9}})

    result = trainer.train([Asking()])

    assert names(result) == ["epoch-000001-step-000000002.zip"]
    assert recorded().metrics["batch/twice"] == [(1, 2.0), (2, 4.0), (3, 6.0), (4, 8.0)]
    assert result["metrics"]["own/value"] == [0.5, 1.0]
    assert recorded().metrics["own/value"] == [(1, 0.5), (2, 1.0)]


def test_without_checkpoints_in_the_spec_a_callback_asks_for_none(tiny):
    with pytest.warns(UserWarning, match="none are written without model.training.checkpoint; give it") as warned:
        result = tiny(training={"epochs": 2}).train([ModelCheckpoint(every_epochs=1)])

    assert len(warned) == 1
    assert not Path(result["run"]["checkpoint_dir"]).exists()


def test_a_rehearsal_that_leaves_checkpoints_out_does_not_complain_that_a_callback_asks_for_one(tiny):
    trainer = tiny(training={"epochs": 2, "checkpoint": {"keep_last": 1}})

    trainer.train([ModelCheckpoint(every_steps=1)], fast_dev_run=True)
    trainer.train([ModelCheckpoint(every_steps=1)], overfit_batches=1)


@pytest.mark.parametrize("setting", ["validate_every_epochs", "validate_every_steps"])
def test_validations_without_rows_to_validate_on_are_said_to_change_nothing(setting, tiny):
    with pytest.warns(UserWarning, match=rf"{setting} changes nothing, because there are no validation rows; give"):
        tiny(training={"epochs": 1, setting: 2}).train()

    tiny(training={"epochs": 1, setting: 2}, samples=PARTS).train()


def test_the_best_that_nothing_is_monitored_by_are_said_to_be_kept_in_vain(tiny):
    with pytest.warns(UserWarning, match=r"keep_best keeps nothing, because no metric is monitored; give"):
        tiny(training={"epochs": 1, "checkpoint": {"keep_best": 1}}).train()
    with pytest.raises(
        SpecError, match=r"model\.training\.checkpoint\.keep_best: keeps the best by the monitored metric"
    ):
        tiny(training={"monitor": None, "checkpoint": {"keep_best": 1}})

    tiny(training={"epochs": 1, "monitor": "train/loss", "checkpoint": {"keep_best": 1}}).train()


def test_the_callback_asks_for_further_checkpoints(tiny):
    training = {"epochs": 4, "checkpoint": {"every_epochs": 4, "keep_last": 9}}

    result = tiny(training=training).train([ModelCheckpoint(every_epochs=2)])

    assert [name[:12] for name in names(result)] == ["epoch-000002", "epoch-000004"]


# Ready callbacks.


def test_the_learning_rate_of_every_step_is_that_with_which_it_was_taken(kept):
    schedule = {"type": "linear_warmup", "length": 4}
    training = {"epochs": 2, "batch_size": 60, "optimizer": {"type": "SGD", "lr": 0.4}, "schedule": schedule}
    trainer, recorded = kept(training=training)

    result = trainer.train([LearningRateMonitor(every_n_steps=1)])

    assert recorded().metrics["batch/lr"] == [(step, pytest.approx(0.1 * (step - 1))) for step in range(1, 5)]
    assert result["metrics"]["lr"] == pytest.approx([0.1, 0.3])


def test_the_time_of_an_epoch_is_that_of_the_data_and_of_the_rest(tiny):
    result = tiny({"type": "digits", "images": True}, "cnn", {"epochs": 2}, data_augmentors=["rotate"]).train(
        [Timing()]
    )

    for data, compute in zip(result["metrics"]["time/data_s"], result["metrics"]["time/compute_s"], strict=True):
        assert data > 0
        assert compute > 0


def test_an_epoch_whose_beginning_nobody_measured_has_no_times(tiny):
    training = {"epochs": 3, "batch_size": 60, "checkpoint": {}}
    with pytest.raises(KeyboardInterrupt):
        tiny(training=training).train([Interrupt(3)])

    result = tiny(training=training).train([Timing()], resume="auto")

    assert result["metrics"]["time/data_s"][:2] == [None, None]
    assert result["metrics"]["time/data_s"][2] > 0


def test_a_limit_of_time_counts_what_was_spent_before_a_resume(tiny):
    training = {"epochs": 10_000, "checkpoint": {"every_epochs": 10_000}}
    with pytest.raises(KeyboardInterrupt):
        tiny(training=training).train([TimeLimit(minutes=1000), Interrupt(2)])
    limit = TimeLimit(minutes=1000)
    limit.load_state_dict({"spent": 60 * 1000.0})

    result = tiny(training=training).train([limit, Interrupt(2)], resume=False)

    assert result["stop_reason"] == "time_limit"
    assert json.loads((Path(result["run"]["run_dir"]) / "result.json").read_text())["stop_reason"] == "time_limit"


# Fewer epochs or steps than were trained.


@pytest.mark.parametrize("fewer", [{"epochs": 2}, {"epochs": 9, "max_steps": 3}])
def test_a_resumed_training_with_fewer_epochs_than_it_had_is_over(tiny, fewer):
    tiny(training={"epochs": 4, "batch_size": 60, "checkpoint": {}}).train()

    result = tiny(training={"batch_size": 60, "checkpoint": {}, **fewer}).train(resume="auto")

    assert result["status"] == "FINISHED"
    assert len(result["metrics"]["train/loss"]) == 4
