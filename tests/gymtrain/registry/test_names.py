from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from gymtrain.errors import RegistrationError
from gymtrain.registry import BUILTIN, KINDS, UnknownTypeError, find, known_names, names, register, type_name


@pytest.fixture(autouse=True)
def forget_what_a_test_registers() -> Iterator[None]:
    before = dict(names._registered)
    yield
    names._registered.clear()
    names._registered.update(before)


class Clip:
    def transform(self, X: object) -> object:
        return X


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in BUILTIN[kind]])
def test_every_built_in_name_leads_to_a_class_or_a_function(kind: str, name: str) -> None:
    target = find(kind, name)

    assert callable(target)
    assert type_name(kind, target) == name


def test_a_registered_class_is_found_by_its_name() -> None:
    assert register("preprocessor", "clip")(Clip) is Clip
    assert find("preprocessor", "clip") is Clip
    assert type_name("preprocessor", Clip) == "clip"
    assert "clip" in known_names("preprocessor")


def test_registering_a_name_again_replaces_the_class() -> None:
    register("preprocessor", "clip")(Clip)
    register("preprocessor", "clip")(type("Clip", (Clip,), {}))

    assert find("preprocessor", "clip") is not Clip


def test_a_name_belongs_to_one_kind() -> None:
    register("preprocessor", "clip")(Clip)

    with pytest.raises(UnknownTypeError, match="'clip' is not a registered model"):
        find("model", "clip")


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("preproc", "clip", r"^register: got the kind 'preproc'; expected one of 'dataset', 'preprocessor', "),
        (None, "clip", r"^register: got the kind None; expected one of "),
        (["model"], "clip", r"^register: got the kind \['model'\]; expected one of "),
        ("model", "mlp", r"^register: the model 'mlp' is built in; choose another name$"),
        ("model", "a:b", r"^register: got the name 'a:b'; expected a word without a colon$"),
        ("model", "", r"^register: got the name ''; expected a word"),
        ("model", 3, r"^register: got the name 3; expected a word"),
        ("model", Clip, r"^register: got the name <class .*Clip'>; expected a word"),
    ],
)
def test_a_kind_or_a_name_that_cannot_be_registered_is_refused(kind: str, name: str, message: str) -> None:
    with pytest.raises(RegistrationError, match=message):
        register(kind, name)


def test_what_cannot_be_called_cannot_be_registered() -> None:
    with pytest.raises(RegistrationError, match=r"^register: got 3; expected a class or a function$"):
        register("model", "three")(3)  # type: ignore[type-var]


def test_a_class_is_found_by_its_module() -> None:
    assert find("dataset", "fractions:Fraction") is __import__("fractions").Fraction
    assert find("dataset", "gymtrain.data.sources:Iris.load").__name__ == "load"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "iriss",
            r"^'iriss' is not a registered dataset; did you mean 'iris'\?; known: arrays, breast_cancer, .*, wine; ",
        ),
        ("zebra", r"^'zebra' is not a registered dataset; known: .*; or give 'package\.module:Class'$"),
        ("no_such_module:Class", r"^'no_such_module:Class': importing 'no_such_module' failed: ModuleNotFoundError"),
        ("fractions:Fractio", r"^'fractions:Fractio': 'fractions' has no 'Fractio'; did you mean 'Fraction'\?$"),
        ("fractions:__name__", r"^'fractions:__name__' is a str; expected a class or a function$"),
        (":", r"^got ':'; expected 'package\.module:Class'$"),
        ("fractions:", r"^got 'fractions:'; expected"),
        (":Fraction", r"^got ':Fraction'; expected"),
        ("..fractions:Fraction", r"^got '\.\.fractions:Fraction'; expected"),
        ("fractions:Fraction:x", r"^got 'fractions:Fraction:x'; expected"),
        ("os.path;x:join", r"^got 'os\.path;x:join'; expected"),
    ],
)
def test_a_name_behind_which_there_is_nothing_is_refused(name: str, message: str) -> None:
    with pytest.raises(UnknownTypeError, match=message):
        find("dataset", name)


def test_a_module_that_fails_when_it_is_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_user_module.py").write_text("raise ValueError('no such setting')")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(UnknownTypeError, match=r"importing 'broken_user_module' failed: ValueError: no such setting$"):
        find("model", "broken_user_module:Net")


def test_a_name_out_of_a_file_imports_nothing_that_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "untrusted_module.py").write_text("class Net: pass")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(
        UnknownTypeError,
        match=r"^the model 'untrusted_module:Net' is not part of gymtrain and a file may not decide what is imported; "
        r"if you trust it, load the file with trust=\['untrusted_module:Net'\]$",
    ):
        find("model", "untrusted_module:Net", trusted=["untrusted_module:Other"])

    assert "untrusted_module" not in sys.modules


def test_a_name_out_of_a_file_may_be_trusted_built_in_or_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trusted_module.py").write_text("class Net: pass")
    monkeypatch.syspath_prepend(tmp_path)
    register("preprocessor", "clip")(Clip)

    assert find("model", "trusted_module:Net", trusted=["trusted_module:Net"]).__name__ == "Net"
    assert find("dataset", "iris", trusted=[]).__name__ == "Iris"
    assert find("preprocessor", "clip", trusted=[]) is Clip


def with_plugin(folder: Path, entry_points: str, code: str) -> str:
    """Install a distribution by hand, as pip leaves it, and run code that finds it."""
    info = folder / "doubler-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: doubler\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    (folder / "doubler.py").write_text("class Double:\n    def transform(self, X):\n        return 2 * X\n")
    program = f"import sys\nsys.path.insert(0, {str(folder)!r})\n{textwrap.dedent(code)}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_installed_plug_in_is_found_by_the_name_of_its_entry_point(tmp_path: Path) -> None:
    printed = with_plugin(
        tmp_path,
        "[gymtrain.preprocessors]\ndouble = doubler:Double\n",
        """
        from gymtrain.registry import find, known_names
        assert "double" in known_names("preprocessor")
        assert "doubler" not in sys.modules
        from gymtrain import Trainer
        trainer = Trainer(
            dataset={"dataset": "iris", "preprocessors": [{"type": "double"}]}, model={"model": "linear"}
        )
        print(trainer.to_dict()["dataset"]["preprocessors"], find("preprocessor", "double").__module__)
        """,
    )

    assert printed == "[{'type': 'double'}] doubler"


def test_a_plug_in_that_is_broken_says_so(tmp_path: Path) -> None:
    printed = with_plugin(
        tmp_path,
        "[gymtrain.preprocessors]\ndouble = doubler:Duoble\n",
        """
        from gymtrain import SpecError, Trainer
        from gymtrain.specs import json_schema
        try:
            Trainer(dataset={"dataset": "iris", "preprocessors": ["double"]}, model={"model": "linear"})
        except SpecError as error:
            print(error.faults[0])
        json_schema()
        """,
    )

    assert printed == (
        "dataset.preprocessors[0].type: 'doubler:Duoble': 'doubler' has no 'Duoble'; did you mean 'Double'?"
    )
