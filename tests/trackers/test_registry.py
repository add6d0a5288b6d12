from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from gymtrain_trackers import (
    ArgumentError,
    DatasetInput,
    MissingPackageError,
    Run,
    Tracker,
    load,
    register,
    registry,
    tracker_class,
    tracker_names,
)


@pytest.fixture(autouse=True)
def _names_of_this_test(monkeypatch):
    monkeypatch.setattr(registry, "_known", dict(registry._known))


def test_importing_the_package_and_its_trackers_loads_no_heavy_library():
    code = """
import sys
import gymtrain_trackers
for name in gymtrain_trackers.tracker_names():
    gymtrain_trackers.load(name)
heavy = {"mlflow", "tensorboard", "wandb", "comet_ml", "numpy", "pandas", "matplotlib", "PIL", "torch", "gymtrain"}
print(sorted(heavy & sys.modules.keys()))
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert printed.strip() == "[]"


OURS = ["comet", "history", "jsonl", "mlflow", "tensorboard", "wandb"]


def test_our_trackers_are_known_by_name():
    assert set(OURS) <= set(tracker_names())
    assert [load(name).name for name in OURS] == OURS


@pytest.mark.parametrize("name", OURS)
def test_arguments_are_annotated_and_have_defaults(name):
    for parameter in inspect.signature(tracker_class(name)).parameters.values():
        assert (parameter.annotation, parameter.default) in {("str | None", None), ("bool", False)}


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ArgumentError, match="there is no tracker 'tensorbord'; did you mean 'tensorboard'"):
        load("tensorbord")


def test_an_unknown_argument_gets_the_nearest():
    with pytest.raises(
        ArgumentError, match="tracker 'mlflow': unknown argument 'tracking_url'; did you mean 'tracking_uri'"
    ):
        load("mlflow", tracking_url="http://localhost:5000")


def test_a_missing_package_comes_with_the_command_that_installs_it():
    @register("needy")
    class NeedyTracker(Tracker):
        requires = ("gymtrain_nonexistent>=1.2",)

    with pytest.raises(MissingPackageError, match=r"'needy' needs .*: pip install 'gymtrain_nonexistent>=1\.2'"):
        load("needy")


def test_a_name_means_one_class():
    with pytest.raises(ArgumentError, match="the name 'mlflow' already means the tracker"):

        @register("mlflow")
        class OtherTracker(Tracker):
            pass


def test_only_trackers_can_be_loaded():
    @register("impostor")
    class Impostor:
        pass

    with pytest.raises(
        ArgumentError, match=r"tracker 'impostor': got .*; expected a subclass of gymtrain_trackers\.Tracker"
    ):
        load("impostor")


def test_a_run_has_absolute_paths_and_names(tmp_path):
    run = Run.new(tmp_path, "team/digits", "..")

    assert run.directory.parent.parent == tmp_path
    assert run.directory.parent.name.startswith("team_digits-")
    assert run.directory.name == f"_-{run.id[:8]}"
    with pytest.raises(ArgumentError, match=r"run\.root: got 'runs'; expected an absolute path"):
        Run(run.id, "a", "b", tmp_path.__class__("runs"), tmp_path, 0.0)
    with pytest.raises(ArgumentError, match=r"run\.id: got 'x'; expected 32 hexadecimal digits"):
        Run("x", "a", "b", tmp_path, tmp_path, 0.0)
    with pytest.raises(ArgumentError, match=r"run\.name: got an empty string"):
        Run.new(tmp_path, "a", "")


def test_experiments_share_no_folder_also_when_their_characters_are_replaced(tmp_path):
    names = ["a €", "a £", "a _", "a _ ", "b" * 130, "b" * 140, "b" * 120]

    folders = [Run.new(tmp_path, name).directory.parent.name for name in names]

    assert len(set(folders)) == len(names)
    assert folders[2] == "a _"
    assert folders[-1] == "b" * 120
    assert folders == [Run.new(tmp_path, name).directory.parent.name for name in names]


def test_an_input_has_a_short_digest_and_a_known_context():
    with pytest.raises(ArgumentError, match=r"digest of 'digits': got 'a+'; expected 1 to 36 characters"):
        DatasetInput("digits", "a" * 37, "training")
    with pytest.raises(ArgumentError, match="context of 'digits': got 'train'; expected 'training'"):
        DatasetInput("digits", "a", "train")
