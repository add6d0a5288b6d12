from __future__ import annotations

import importlib.metadata
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gymtrain
from gymtrain import errors

ROOT = Path(__file__).parents[1]


def test_the_public_names_are_these() -> None:
    tools = {"Callback", "Dataset", "Model", "Tracking", "Trainer", "inspect", "register"}
    public_errors = {name for name in vars(errors) if name.endswith("Error") and not name.startswith("_")}

    assert set(gymtrain.__all__) == tools | public_errors


def test_the_public_names_are_sorted_and_named_once() -> None:
    # Classes first, then functions, as ruff sorts them.
    assert gymtrain.__all__ == sorted(set(gymtrain.__all__), key=lambda name: (name[0].islower(), name))


@pytest.mark.parametrize("name", gymtrain.__all__)
def test_every_public_name_can_be_imported_and_has_a_docstring(name: str) -> None:
    value = getattr(gymtrain, name)

    assert inspect.getdoc(value)
    assert name in dir(gymtrain)


def test_type_checkers_see_every_public_name() -> None:
    source = Path(gymtrain.__file__).read_text(encoding="utf-8")
    block = source[source.index("if TYPE_CHECKING:") : source.index("def __getattr__")]

    assert set(gymtrain.__all__) <= set(re.findall(r"\w+", block))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"^module 'gymtrain' has no attribute 'Trainr'$"):
        gymtrain.Trainr  # noqa: B018


def test_the_version_is_that_of_the_distribution() -> None:
    assert importlib.metadata.version("gymtrain") == gymtrain.__version__


def loads(code: str) -> set[str]:
    """Run code in a process of its own and return which of the heavy packages it loaded."""
    program = (
        f"import sys\n{code}\nprint(*({{'torch', 'mlflow', 'sklearn', 'pandas', 'tensorboard'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_importing_gymtrain_loads_no_heavy_package() -> None:
    assert loads("import gymtrain") == set()


def test_describing_every_built_in_type_loads_neither_torch_nor_mlflow() -> None:
    code = """
from gymtrain import Trainer, Dataset, Model, Tracking
from gymtrain.registry import BUILTIN
from gymtrain.specs import json_schema

needed = {
    "arrays": {"X": [[0.0], [1.0]], "y": [0, 1]},
    "center_crop": {"width": 8, "height": 8},
    "csv": {"path": "rows.csv", "target": "y"},
    "dataframe": {"data": {"x": [1], "y": [2]}, "target": "y"},
    "hdf5": {"path": "photos.h5"},
    "huggingface": {"name": "ylecun/mnist"},
    "image_csv": {"path": "labels.csv"},
    "image_folder": {"path": "photos"},
    "image_resize": {"width": 8, "height": 8},
    "parquet": {"path": "rows.parquet", "target": "y"},
    "replace": {"from_val": None, "to_val": 0.0},
}
given = {
    kind: [{"type": name, **needed.get(name, {})} for name in names]
    for kind, names in BUILTIN.items()
    if kind not in {"model", "loss"}
}
models = ["linear", "mlp", "cnn", "dogs_vs_cats_cnn", "resnet"]
models += [{"type": "sklearn", "estimator": "RandomForestClassifier"}, {"type": "timm", "name": "resnet18"}]
assert len(models) == len(BUILTIN["model"])
preprocessors = [
    {**each, "transformer": "PCA"} if each["type"] == "sklearn" else each for each in given["preprocessor"]
]
for dataset in given["dataset"]:
    for model in models:
        trainer = Trainer(
            dataset={"dataset": dataset, "preprocessors": preprocessors, "data_augmentors": given["augmentor"]},
            model={"model": model, "training": {"metrics": ["accuracy", "f1"], "loss": "cross_entropy"}},
            tracking={"trackers": given["tracker"]},
        )
        trainer.to_dict(), trainer.spec_sha256
json_schema()
"""
    assert loads(code) & {"torch", "mlflow", "tensorboard"} == set()
