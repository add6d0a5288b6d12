from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gymtrain import register
from gymtrain.cli import app
from gymtrain.data.image_sources.small_images import Mnist
from gymtrain.registry import BUILTIN, known_names, names


def listed() -> dict[str, dict[str, object]]:
    result = CliRunner().invoke(app, ["datasets", "--json"])
    assert result.exit_code == 0, result.output
    return {each["type"]: each for each in json.loads(result.output)["types"]}


def test_every_type_is_listed_with_a_summary_and_what_it_needs(mirrored: Path) -> None:
    found = listed()

    assert list(found) == known_names("dataset")
    # Other tests of the process may have registered some without a word.
    built_in = [found[name] for name in BUILTIN["dataset"]]
    assert all(each["summary"] and each["error"] is None for each in built_in)
    assert found["csv"]["required"] == ["path", "target"]
    assert found["dogs_vs_cats"]["download_bytes"] == 824_887_076
    assert found["dogs_vs_cats"]["optional"] == ["data_dir", "force_download"]
    assert (found["hdf5"]["extra"], found["hdf5"]["installed"]) == ("hdf5", True)


def test_what_is_downloaded_is_counted(mirrored: Path) -> None:
    Mnist(part="test").prepare()

    found = listed()

    assert found["mnist"]["cached_bytes"] > 1000
    assert found["fashion_mnist"]["cached_bytes"] == 0


def test_the_table_says_where_the_data_lies(mirrored: Path) -> None:
    Mnist(part="test").prepare()

    output = CliRunner().invoke(app, ["datasets"]).output

    assert "a download of 787 MiB" in output
    assert re.search(r"mnist .* a download of 11 MiB, \d+ KiB are there", output)
    assert f"Downloaded data and decoded images lie in {mirrored}" in output
    assert "; downloads come from file://" in output


def test_a_registered_type_is_listed_too(mirrored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_registered", dict(names._registered))

    @register("dataset", "my_rows")
    class MyRows:
        """Rows of mine,
        and of nobody else.

        Told at length.
        """

        def __init__(self, folder: str, *, limit: int = 3, **others: int) -> None:
            pass

        def load(self) -> None:
            pass

    found = listed()["my_rows"]

    assert found["summary"] == "Rows of mine, and of nobody else."
    assert (found["required"], found["optional"], found["installed"]) == (["folder"], ["limit"], True)


def test_a_package_that_is_missing_is_named(mirrored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gymtrain.data.image_sources.hdf5 import Hdf5

    monkeypatch.setattr(Hdf5, "package", "no_such_package")

    assert listed()["hdf5"]["installed"] is False
    assert "pip install 'gymtrain[hdf5]'" in CliRunner().invoke(app, ["datasets"]).output


def test_a_plug_in_that_is_broken_is_listed_with_its_error(tmp_path: Path) -> None:
    information = tmp_path / "plugin-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[gymtrain.datasets]\nbroken = no_such_module:Rows\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import gymtrain.cli\n"
        f"try: gymtrain.cli.main()\nfinally: print(*sys.modules, file=sys.stderr)"
    )

    done = subprocess.run([sys.executable, "-c", code, "datasets"], capture_output=True, text=True, check=True)

    assert "importing 'no_such_module' failed" in done.stdout
    assert set(done.stderr.split()).isdisjoint({"torch", "mlflow", "sklearn", "h5py", "datasets"})
