"""A spec that is written down and read back is the same spec."""

from __future__ import annotations

import copy
import enum
import json
import string
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gymtrain import Dataset, Model, Tracking, register
from gymtrain.registry import names
from gymtrain.specs import Experiment, read_spec_file

RIGHT: dict[str, Any] = {"dataset": {"dataset": "iris"}, "model": {"model": "mlp"}}


@pytest.fixture(autouse=True)
def forget_what_a_test_registers() -> Iterator[None]:
    before = dict(names._registered)
    yield
    names._registered.clear()
    names._registered.update(before)


words = st.text(string.ascii_letters + "äß漢 _-", min_size=1, max_size=12).filter(str.strip)
fractions = st.floats(0.01, 0.3)
positive = st.integers(1, 10**6)
seeds = st.integers(0, 2**63 - 1)


def component(name: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({"type": st.just(name)}, optional=arguments)


datasets = st.one_of(
    component("iris"),
    st.just("wine"),
    component("digits", images=st.booleans()),
    st.fixed_dictionaries(
        {"type": st.just("csv"), "path": words, "target": words | st.lists(words, min_size=1, max_size=3)},
        optional={"task": st.sampled_from(["binary", "regression", None])},
    ),
)
samples = st.fixed_dictionaries(
    {"train": fractions | positive, "val": fractions | positive, "test": fractions | positive | st.none()},
    optional={"stratify": st.booleans()},
)
preprocessors = st.one_of(
    st.just("standard_scaler"),
    component("divide", factor=st.floats(0.1, 1e6) | st.integers(1, 9)),
    component("kbest", k=positive, score=st.sampled_from(["auto", "chi2"])),
    component("tabular", scale=st.sampled_from(["standard", None]), max_categories=positive),
    component("min_max_scaler", feature_range=st.just([-1, 2])),
    st.fixed_dictionaries(
        {"type": st.just("sklearn"), "transformer": st.just("PCA")}, optional={"n_components": positive | st.none()}
    ),
)
models = st.one_of(
    st.sampled_from(["linear", "cnn"]),
    component("mlp", hidden=st.lists(st.integers(1, 99), max_size=3), dropout=st.floats(0, 0.9)),
    st.fixed_dictionaries(
        {"type": st.just("sklearn"), "estimator": st.just("RandomForestClassifier")},
        optional={"n_estimators": positive, "max_features": st.sampled_from(["sqrt", 0.5, None])},
    ),
)
training = st.fixed_dictionaries(
    {},
    optional={
        "epochs": positive | st.none(),
        "max_steps": positive | st.none(),
        "optimizer": st.sampled_from(["adam", "SGD"])
        | component("AdamW", lr=st.floats(1e-9, 1), betas=st.just([0.5, 0.9])),
        "schedule": st.none()
        | st.sampled_from(["cosine", "LinearLR", "math:exp"])
        | component("CyclicLR", gamma=st.floats(0.1, 1), by=st.sampled_from(["epoch", "step"])).map(
            lambda given: {**given, "base_lr": 0.1, "max_lr": 1.0}
        )
        | st.fixed_dictionaries(
            {
                "type": st.just("chain"),
                "schedules": st.just(["one_cycle", {"type": "StepLR", "step_size": 3}, "math:exp"]),
                "milestones": st.just([3, 5]),
            },
            optional={"by": st.sampled_from(["epoch", "step"])},
        ),
        "loss": st.sampled_from(["auto", "cross_entropy", "mse", "BCEWithLogitsLoss"]),
        "metrics": st.just("auto") | st.lists(st.sampled_from(["accuracy", "f1", "rmse"]), unique=True),
        "class_weight": st.none()
        | st.just("balanced")
        | st.dictionaries(words | st.integers(), st.floats(0.1, 9), min_size=1),
        "monitor": st.sampled_from(["auto", None, "val/accuracy"]),
        "device": st.sampled_from(["auto", "cpu", "cuda:1"]),
        "seed": seeds,
    },
)
specs = st.fixed_dictionaries(
    {
        "dataset": st.fixed_dictionaries(
            {"dataset": datasets},
            optional={
                "samples": samples,
                "preprocessors": st.just("auto") | st.lists(preprocessors, max_size=3),
                "data_augmentors": st.lists(component("flip", probability=st.floats(0, 1)), max_size=2),
                "shuffle": st.booleans(),
                "one_hot": st.booleans(),
                "seed": seeds,
                "chunk_size": positive | st.none(),
            },
        ),
        "model": st.fixed_dictionaries({"model": models}, optional={"training": training}),
    },
    optional={
        "tracking": st.fixed_dictionaries(
            {},
            optional={
                "root": words,
                "experiment": words | st.none(),
                "tags": st.dictionaries(words, words | st.integers() | st.booleans()),
                "log_figures": st.booleans(),
                "log_every_n_steps": st.integers(0, 9),
                "trackers": st.lists(st.sampled_from(["mlflow", "tensorboard", {"type": "jsonl"}]), max_size=3),
                "on_error": st.sampled_from(["warn", "raise"]),
            },
        )
    },
)


@settings(deadline=None, max_examples=60)
@given(spec=specs)
def test_a_resolved_spec_comes_back_out_of_a_dict_json_and_yaml(spec: dict[str, Any], tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("spec")
    experiment = Experiment(**spec)
    resolved = experiment.to_dict()
    (folder / "spec.json").write_text(json.dumps(resolved, allow_nan=False))
    (folder / "spec.yaml").write_text(yaml.safe_dump(resolved, allow_unicode=True), encoding="utf-8")

    for content in (resolved, read_spec_file(folder / "spec.json"), read_spec_file(folder / "spec.yaml")):
        again = Experiment(**content)
        assert again.to_dict() == resolved
        assert again.sha256 == experiment.sha256
        assert again == experiment


@settings(deadline=None, max_examples=20)
@given(spec=specs)
def test_the_callers_dict_is_not_changed(spec: dict[str, Any]) -> None:
    before = copy.deepcopy(spec)

    Experiment(**spec).to_dict()

    assert spec == before


def test_every_default_is_written_out() -> None:
    resolved = Experiment(**RIGHT).to_dict()

    assert resolved == {
        "dataset": {
            "dataset": {"type": "iris"},
            "samples": {"train": 0.8, "val": 0.0, "test": None, "stratify": False, "group_by": None},
            "preprocessors": "auto",
            "data_augmentors": [],
            "shuffle": True,
            "one_hot": False,
            "seed": 0,
            "chunk_size": None,
            "on_bad_sample": "raise",
            "max_image_pixels": 80_000_000,
            "image_cache_gb": 20.0,
        },
        "model": {
            "model": {"type": "mlp", "hidden": [64, 64], "dropout": 0.0, "activation": "relu"},
            "training": {
                "epochs": 10,
                "max_steps": None,
                "steps_per_epoch": None,
                "batch_size": 32,
                "accumulate": 1,
                "optimizer": resolved["model"]["training"]["optimizer"],
                "schedule": None,
                "clip_grad_norm": None,
                "clip_grad_value": None,
                "precision": "32",
                "compile": False,
                "ema": None,
                "start_from": None,
                "freeze": [],
                "unfreeze_at_epoch": None,
                "lr_multipliers": None,
                "early_stopping": None,
                "checkpoint": None,
                "loss": "auto",
                "metrics": "auto",
                "validation_split": 0.0,
                "validate_every_epochs": 1,
                "validate_every_steps": None,
                "sampling": "shuffle",
                "class_weight": None,
                "monitor": "auto",
                "device": "auto",
                "workers": 0,
                "worker_timeout": 300.0,
                "deterministic": False,
                "seed": 0,
            },
        },
        "tracking": {
            "root": "runs",
            "experiment": None,
            "run_name": None,
            "tags": {},
            "log_model_params": True,
            "log_model_metrics": True,
            "log_training_params": True,
            "log_system_metrics": True,
            "log_figures": True,
            "log_bundle": True,
            "log_every_n_steps": 50,
            "trackers": [],
            "on_error": "warn",
        },
    }
    assert {"type": "Adam", "lr": 0.001, "betas": [0.9, 0.999], "eps": 1e-08}.items() <= resolved["model"]["training"][
        "optimizer"
    ].items()


def test_what_to_dict_returns_is_the_callers_own() -> None:
    experiment = Experiment(**RIGHT)
    experiment.to_dict()["model"]["model"]["hidden"].append(1)
    experiment.to_dict()["tracking"]["tags"]["a"] = "b"

    assert experiment.to_dict()["model"]["model"]["hidden"] == [64, 64]
    assert experiment.to_dict()["tracking"]["tags"] == {}


def test_spec_objects_are_as_good_as_dicts() -> None:
    dataset = {"dataset": {"type": "digits"}, "samples": {"train": 0.5}, "seed": 3}
    model = {"model": {"type": "mlp", "hidden": [8]}, "training": {"epochs": 2, "metrics": ["accuracy"]}}
    tracking = {"root": "here", "trackers": ["mlflow"]}

    objects = Experiment(dataset=Dataset(**dataset), model=Model(**model), tracking=Tracking(**tracking))

    assert objects == Experiment(dataset=dataset, model=model, tracking=tracking)
    assert objects.to_dict()["dataset"] == Dataset(**dataset).to_dict()
    assert objects.to_dict()["tracking"] == Tracking(**tracking).to_dict()


def test_an_object_of_a_subclass_is_a_spec_too() -> None:
    class Ours(Tracking):
        """A user's defaults."""

    assert Experiment(**RIGHT, tracking=Ours(root="here")).tracking.root == "here"


def test_numbers_of_numpy_tuples_paths_and_other_mappings_are_taken_as_what_they_stand_for() -> None:
    plain = Experiment(
        dataset={"dataset": {"type": "csv", "path": "a.csv", "target": "y"}, "seed": 3},
        model={"model": {"type": "mlp", "hidden": [8, 4], "dropout": 0.5}},
    )
    odd = Experiment(
        dataset=MappingProxyType(
            {"dataset": {"type": "csv", "path": Path("a.csv"), "target": "y"}, "seed": np.int64(3)}
        ),
        model={"model": {"type": "mlp", "hidden": (np.int32(8), np.array(4)), "dropout": np.float64(0.5)}},
    )

    assert odd.to_dict() == plain.to_dict()


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ({"optimizer": "adam"}, {"optimizer": {"type": "Adam"}}),
        ({"loss": "mse"}, {"loss": {"type": "MSELoss"}}),
        ({"loss": "cross_entropy"}, {"loss": {"type": "CrossEntropyLoss"}}),
        ({"metrics": ["f1"]}, {"metrics": [{"type": "f1_score", "name": "f1"}]}),
        ({"metrics": ["rmse"]}, {"metrics": [{"type": "MeanSquaredError", "squared": False, "name": "rmse"}]}),
        ({}, {"epochs": 10}),
        ({"max_steps": 5}, {"max_steps": 5, "epochs": None}),
        ({"class_weight": {0: 1, 1: 2}}, {"class_weight": {"0": 1.0, "1": 2.0}}),
    ],
)
def test_short_forms_are_written_out(short: dict[str, Any], long: dict[str, Any]) -> None:
    assert Model(model="mlp", training=short).to_dict() == Model(model="mlp", training=long).to_dict()


def test_the_hash_tells_configurations_apart_and_not_how_they_are_written() -> None:
    same = Experiment(
        model={"training": {"epochs": 10}, "model": {"type": "mlp"}}, dataset={"dataset": {"type": "iris"}}
    )

    assert Experiment(**RIGHT).sha256 == same.sha256
    assert Experiment(**RIGHT, tracking={"run_name": "é"}).sha256 != same.sha256


UNSET = object()


class Grey(enum.Enum):
    DARK = "dark"


class Shades:
    """A preprocessor whose arguments are more than JSON has."""

    def __init__(
        self,
        shade: Grey = Grey.DARK,
        sizes: tuple[int, ...] = (1, 2),
        names: set[str] = {"b", "a"},
        where: Path = Path("here"),
        unset: Any = UNSET,
    ) -> None:
        self.sizes, self.unset = sizes, unset

    def transform(self, X: Any) -> Any:
        return X


def test_what_json_has_not_is_written_as_what_it_has_and_read_back() -> None:
    register("preprocessor", "shades")(Shades)
    spec = Dataset(dataset="iris", preprocessors=[{"type": "shades", "sizes": (3, 4)}])
    written = spec.to_dict()["preprocessors"]

    assert written == [{"type": "shades", "shade": "dark", "sizes": [3, 4], "names": ["a", "b"], "where": "here"}]
    assert Dataset(dataset="iris", preprocessors=written).to_dict()["preprocessors"] == written
    assert spec.preprocessors[0].build().sizes == (3, 4)
    assert spec.preprocessors[0].build().unset is UNSET


def test_a_class_is_written_under_the_name_it_is_found_by() -> None:
    by_module = Dataset(dataset="iris", preprocessors=[Shades]).to_dict()["preprocessors"][0]["type"]
    register("preprocessor", "shades")(Shades)
    by_name = Dataset(dataset="iris", preprocessors=[{"type": Shades}]).to_dict()["preprocessors"][0]["type"]

    assert by_module == f"{__name__}:Shades"
    assert by_name == "shades"


def test_a_class_inside_a_function_may_have_a_registered_name() -> None:
    @register("preprocessor", "local")
    class Local:
        def transform(self, X: Any) -> Any:
            return X

    assert Dataset(dataset="iris", preprocessors=[Local]).to_dict()["preprocessors"] == [{"type": "local"}]
