from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from bundle_forge import take_apart
from safetensors.numpy import load as load_tensors
from torch import nn

from gymtrain import BundleError, Trainer, inspect
from gymtrain.bundle import open_bundle
from gymtrain.trainer.tying import tied, ties

SHARED = "user_shared_weights:Shared"


@pytest.fixture
def saved(tiny, tmp_path):
    """A trainer whose model shares memory in all ways, and its bundle."""
    trainer = tiny(model={"type": SHARED}, training={"epochs": 1, "checkpoint": {"every_epochs": 1}})
    trainer.train()
    trainer.save(tmp_path / "shared.zip")
    return trainer, tmp_path / "shared.zip"


def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


def test_what_shares_memory_is_written_once(saved):
    _, path = saved
    weights = load_tensors(take_apart(path.read_bytes()).part("weights.safetensors").content)

    tied_to = {name: tie["of"] for name, tie in inspect(path)["storage"]["tied"].items()}

    assert tied_to == {
        "decode.weight": "encode.weight",
        "first_rows": "encode.weight",
        "turned": "encode.weight",
        "every_second": "table",
    }
    assert weights.keys() & tied_to.keys() == set()
    assert weights["encode.weight"].shape == (4, 4)
    assert weights["beginning"].shape == weights["left"].shape == (4,)


def test_what_shares_memory_shares_it_again_when_it_is_loaded(saved):
    trainer, path = saved

    loaded = Trainer.load(path, trust=[SHARED])

    module = loaded._predictor.learner.module
    assert module.encode.weight is module.decode.weight
    with torch.no_grad():
        before = loaded.predict_proba(rows())
        module.encode.weight.fill_(7.0)
        module.table.fill_(8.0)
    assert before.tobytes() == trainer.predict_proba(rows()).tobytes()
    assert (module.decode.weight == 7).all()
    assert (module.first_rows == 7).all()
    assert (module.turned == 7).all()
    assert module.every_second.tolist() == [8, 8, 8]


def test_the_file_says_what_is_tied_and_not_the_constructor(saved, tiny, tmp_path):
    """As where it was tied, or untied, while it was trained."""
    trainer, _ = saved
    module = trainer._predictor.learner.module
    module.decode.weight = nn.Parameter(torch.zeros(4, 4))
    trainer.save(tmp_path / "untied.zip")
    untied = Trainer.load(tmp_path / "untied.zip", trust=[SHARED])
    tying = tiny(model={"type": SHARED, "tie": False})
    tying.train()
    tying._predictor.learner.module.decode.weight = tying._predictor.learner.module.encode.weight
    tying.save(tmp_path / "tied.zip")

    again = Trainer.load(tmp_path / "tied.zip", trust=[SHARED])._predictor.learner.module

    assert (untied._predictor.learner.module.decode.weight == 0).all()
    assert untied.predict_proba(rows()).tobytes() == trainer.predict_proba(rows()).tobytes()
    assert again.decode.weight is again.encode.weight


def test_a_training_goes_on_from_a_checkpoint_with_tied_weights(saved, tiny, tmp_path):
    (checkpoint,) = tmp_path.glob("runs/*/*/checkpoints/*.zip")
    whole = tiny(model={"type": SHARED}, training={"epochs": 2})
    whole.train()

    resumed = tiny(model={"type": SHARED}, training={"epochs": 2, "checkpoint": {"every_epochs": 1}})
    resumed.train(resume=checkpoint)

    assert "decode.weight" not in load_tensors(take_apart(checkpoint.read_bytes()).part("weights.safetensors").content)
    assert resumed.predict_proba(rows()).tobytes() == whole.predict_proba(rows()).tobytes()


def test_a_model_that_shares_nothing_says_nothing(iris_trainer, tmp_path):
    iris_trainer.save(tmp_path / "iris.zip")

    with open_bundle(tmp_path / "iris.zip") as bundle:
        assert bundle.storage() is None


def test_ties_are_found_in_any_order_and_kept_in_that_of_the_state():
    weight = torch.arange(12.0).reshape(3, 4)
    state = {"part": weight[1:, ::2], "turned": weight.T, "weight": weight, "same": weight[:], "other": weight.clone()}

    found = ties(state)

    assert list(found) == ["part", "turned", "same"]
    assert {tie["of"] for tie in found.values()} == {"weight"}
    again = tied({"weight": weight, "other": state["other"]}, json.loads(json.dumps(found)))
    assert {name: tensor.tolist() for name, tensor in again.items()} == {n: t.tolist() for n, t in state.items()}


@pytest.mark.parametrize(
    "state",
    [
        {"first": torch.arange(5.0)[:3], "second": torch.arange(5.0)[2:]},
        dict(zip(["first", "second"], torch.zeros(2, 3), strict=True)),
        {"real": torch.zeros(4), "whole": torch.zeros(4).view(torch.int32)},
        {"narrow": torch.zeros(1), "wide": torch.zeros(1).expand(3)},
        {"none": torch.empty(0), "nothing": torch.empty(0)},
    ],
    ids=["overlapping", "side by side", "of two types", "of different size", "empty"],
)
def test_all_else_that_lies_in_one_storage_is_no_tie(state):
    shared = torch.arange(5.0)
    if state.keys() == {"first", "second"} and len(state["first"]) == len(state["second"]) == 3:
        state = {"first": shared[:3], "second": shared[2:]}

    assert ties(state) == {}


WEIGHT = {"weight": torch.zeros(2, 3)}
VIEW = {"of": "weight", "offset": 0, "shape": [2], "stride": [3]}


@pytest.mark.parametrize(
    "said",
    [
        [],
        {"a": "weight"},
        {"a": {"of": "nowhere"}},
        {"a": {"of": ["weight"]}},
        {"weight": {"of": "weight"}},
        {"a": {"of": "weight"}, "b": {"of": "a"}},
        {"a": {"of": "weight", "offset": 0}},
        {"a": VIEW | {"more": 1}},
        {"a": VIEW | {"offset": 3}},
        {"a": VIEW | {"offset": -1}},
        {"a": VIEW | {"offset": True}},
        {"a": VIEW | {"stride": [6]}},
        {"a": VIEW | {"stride": [-3]}},
        {"a": VIEW | {"stride": [3, 1]}},
        {"a": VIEW | {"shape": [10**12], "stride": [0]}},
        {"a": VIEW | {"shape": [0]}},
        {"a": VIEW | {"shape": 2}},
        {"a": VIEW | {"shape": [2**62, 4], "stride": [0, 0]}},
        {"a": VIEW | {"shape": [1] * 33, "stride": [1] * 33}},
    ],
    ids=str,
)
def test_ties_of_a_file_that_cannot_be_are_refused(said):
    with pytest.raises(BundleError, match=r"^storage\.json: tied: ") as caught:
        tied(WEIGHT, said)
    assert caught.value.reason == "inconsistent"


def test_a_file_that_ties_what_the_model_has_not_is_refused(saved):
    _, path = saved
    forge = take_apart(path.read_bytes())
    for said in ({"tied": {}}, {"tied": {"more": {"of": "table"}}}, {"untied": {}}):
        path.write_bytes(forge.replace("storage.json", json.dumps(said).encode()).pack())

        with pytest.raises(BundleError, match=r"storage\.json: unknown 'untied'|weights\.safetensors: the model has"):
            Trainer.load(path, trust=[SHARED])
