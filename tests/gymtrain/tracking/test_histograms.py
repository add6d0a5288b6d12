"""What trackers ask for: histograms of the parameters and the graph of the model."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gymtrain import Trainer
from gymtrain.training.callbacks import TrainingState
from gymtrain.training.histograms import BINS, ParameterHistograms, histograms


def trained(root, *trackers, model=None, **training):
    trainer = Trainer(
        dataset={"dataset": {"type": "iris"}, "samples": {"train": 0.8, "val": 0.2}},
        model={"model": model or {"type": "mlp", "hidden": [8], "dropout": 0.2}, "training": {"epochs": 2} | training},
        tracking={"root": str(root), "log_system_metrics": False, "trackers": list(trackers), "on_error": "raise"},
    )
    trainer.train()
    return trainer


def events_of(trainer):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(trainer.result["run"]["tensorboard_dir"], size_guidance={"tensors": 0})
    events.Reload()
    return events


def weights_of(trainer, path):
    trainer.save(path)
    return Trainer.load(path).predict_proba(np.ones((3, 4), np.float32))


class Branching(nn.Module):
    """What no trace can follow."""

    def __init__(self, output_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(4, output_size)
        self.calls = 0

    def forward(self, x):
        if torch.jit.is_tracing():
            raise RuntimeError("not while traced\nand more")
        return self.linear(x)


def test_tensorboard_shows_parameters_gradients_and_the_graph_on_request(tmp_path):
    events = events_of(trained(tmp_path, {"type": "tensorboard", "histograms": True, "graph": True}))

    names = [
        tag for tag in events.Tags()["tensors"] if events.SummaryMetadata(tag).plugin_data.plugin_name == "histograms"
    ]
    assert {name.split("/")[0] for name in names} == {"parameters", "gradients"}
    assert len(names) == 2 * 4  # two layers, each with a weight and a bias
    for name in names:
        assert [each.step for each in events.Tensors(name)] == [1, 2]
    assert any("Linear" in node.name or node.op == "aten::linear" for node in events.Graph().node)


def test_nothing_is_computed_where_nobody_asks(tmp_path):
    trainer = trained(tmp_path, {"type": "tensorboard"})

    run = Path(trainer.result["run"]["run_dir"])
    assert not (run / "graph.pb").exists()
    assert "log_histogram" not in (run / "journal.jsonl").read_text()


def test_what_is_learned_is_the_same_bits(tmp_path):
    plain = trained(tmp_path / "a", {"type": "tensorboard"})
    watched = trained(tmp_path / "b", {"type": "tensorboard", "histograms": True, "graph": True})

    left, right = (weights_of(each, tmp_path / f"{id(each)}.zip") for each in (plain, watched))
    np.testing.assert_array_equal(left, right)
    assert plain.result["metrics"] == watched.result["metrics"]


def test_a_module_that_cannot_be_traced_is_trained_all_the_same(tmp_path):
    with pytest.warns(
        UserWarning, match=r"the graph of Branching cannot be drawn \(not while traced\); the run goes on"
    ):
        trainer = trained(tmp_path, {"type": "tensorboard", "graph": True}, model={"type": Branching})

    assert trainer.result["status"] == "FINISHED"
    assert not events_of(trainer).Tags()["graph"]


def test_a_model_of_another_library_has_neither(tmp_path):
    model = {"type": "sklearn", "estimator": "LogisticRegression"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scikit-learn, about its iterations
        trainer = trained(tmp_path, {"type": "tensorboard", "histograms": True, "graph": True}, model=model, epochs=1)

    assert trainer.result["status"] == "FINISHED"


def test_counts_are_those_of_numpy():
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)).reshape(10, 100)

    counts, edges = histograms({"a": values})["a"]

    expected, limits = np.histogram(values.numpy(), BINS)
    np.testing.assert_allclose(edges, limits, rtol=1e-5, atol=1e-6)
    assert sum(counts) == 1000
    assert np.abs(np.array(counts) - expected).sum() <= 4  # values upon an edge


@pytest.mark.parametrize("values", [[0.0], [1.0], [-3e7], [1e-30], [1.0, 1.0 + 1e-7]])
def test_values_that_are_all_but_equal_lie_within_edges_that_differ(values):
    counts, edges = histograms({"a": torch.tensor(values)})["a"]

    assert sum(counts) == len(values)
    assert edges[0] < values[0] < edges[-1]


def test_values_that_are_not_finite_are_left_out():
    found = histograms(
        {
            "some": torch.tensor([math.nan, math.inf, -math.inf, 1.0, 2.0]),
            "none": torch.tensor([math.nan]),
            "empty": torch.zeros(0),
            "half": torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        }
    )

    assert {name: sum(counts) for name, (counts, _) in found.items()} == {"some": 2, "half": 2}


def test_gradients_that_are_not_there_are_passed_over():
    module = nn.Linear(2, 1)
    module.weight.grad = torch.ones(1, 2)
    told = []

    ParameterHistograms(module, lambda *what: told.append(what)).on_epoch_end(TrainingState(epoch=3))

    assert [(name, step) for name, _, _, step in told] == [
        ("parameters/weight", 3),
        ("gradients/weight", 3),
        ("parameters/bias", 3),
    ]
