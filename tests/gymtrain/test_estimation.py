from __future__ import annotations

import json

import pytest
from user_code import rows_of

from gymtrain import InputError, NotTrainedError, Trainer


def test_a_network_tells_its_parameters_and_what_it_takes(tiny):
    trainer = tiny(model={"type": "mlp", "hidden": [8]})
    trainer.train()

    found = trainer.estimate(repetitions=20)

    count = 4 * 8 + 8 + 8 * 3 + 3
    assert found["parameters"] == {"total": count, "trainable": count, "frozen": 0}
    assert found["bytes"] == {"float32": 4 * 67}
    assert found["activation_bytes"] == 4 * (8 + 8)
    json.dumps(found, allow_nan=False)


def test_percentiles_go_up_and_every_time_is_above_zero(tiny):
    trainer = tiny()
    trainer.train()

    found = trainer.estimate(repetitions=20)

    latency = found["latency_ms"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]
    assert latency["mean"] > 0
    assert latency["std"] >= 0
    assert list(found["rows_per_second"]) == ["1", "8", "64", "512"]
    assert min(found["rows_per_second"].values()) > 0


def test_a_loaded_bundle_is_estimated_on_the_rows_that_it_holds(tiny, tmp_path):
    frame = {"x": [1.0, 2.0, None] * 10, "city": ["a", "b", None] * 10, "y": [0, 1] * 15}
    trainer = tiny({"type": "dataframe", "data": frame, "target": "y"})
    trainer.train()
    trainer.save(tmp_path / "frame.zip")

    found = Trainer.load(tmp_path / "frame.zip").estimate(repetitions=5)

    assert found["parameters"] == trainer.estimate(repetitions=5)["parameters"]


def test_a_model_of_another_library_has_times_and_no_parameters(tiny):
    X, y = rows_of("binary")
    trainer = tiny({"type": "arrays", "X": X, "y": y}, {"type": "sklearn", "estimator": "GaussianNB"}, training={})
    trainer.train()

    found = trainer.estimate(repetitions=5)

    assert found["parameters"] is found["bytes"] is found["activation_bytes"] is None
    assert found["latency_ms"]["mean"] > 0


@pytest.mark.parametrize("repetitions", [0, -1, 1.5, "10", None, True])
def test_repetitions_that_cannot_be_counted_are_refused(iris_trainer, repetitions):
    with pytest.raises(InputError, match=r"estimate: got repetitions=.*; expected a whole number of at least 1"):
        iris_trainer.estimate(repetitions)


def test_what_has_not_learned_cannot_be_estimated(tiny):
    with pytest.raises(NotTrainedError, match="estimate: this trainer has not learned anything yet"):
        tiny().estimate()
