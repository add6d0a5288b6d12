from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gymtrain import SpecError
from gymtrain.specs import Experiment, read_spec_file

CONTENT = {"dataset": {"dataset": {"type": "iris"}}, "model": {"model": {"type": "mlp"}}}
JSON = '{"dataset": {"dataset": {"type": "iris"}}, "model": {"model": {"type": "mlp"}}}'
YAML = "dataset:\n  dataset: {type: iris}\nmodel:\n  model: {type: mlp}\n"


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("spec.json", JSON),
        ("spec.JSON", JSON),
        ("spec.yaml", YAML),
        ("spec.yml", YAML),
        ("spec.yaml", JSON),
        ("spec.yaml", b"\xef\xbb\xbf" + YAML.encode()),
        ("spec.json", b"\xef\xbb\xbf" + JSON.encode()),
        ("spec.yaml", YAML.replace("\n", "\r\n")),
    ],
)
def test_json_and_yaml_are_read(written: Any, name: str, content: str | bytes) -> None:
    assert read_spec_file(written(name, content)) == CONTENT
    assert read_spec_file(str(written(name, content))) == CONTENT


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("1.5e-3", 1.5e-3), ("-2E+1", -20.0), ("1.0e-3", 1e-3), ("12e5", "12e5")]
)
def test_yaml_reads_a_number_in_scientific_notation(written: Any, text: str, value: Any) -> None:
    assert read_spec_file(written("spec.yaml", f"lr: {text}")) == {"lr": value}


def test_yaml_may_refer_to_what_it_said_before(written: Any) -> None:
    text = "a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  x: 3\n"

    assert read_spec_file(written("spec.yaml", text))["b"] == {"x": 3, "y": 2}


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
        read_spec_file(tmp_path / "nowhere.json")


def test_a_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").mkdir()

    with pytest.raises(IsADirectoryError, match=r"spec\.yaml"):
        read_spec_file(tmp_path / "spec.yaml")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("spec.json", "{", r"spec\.json: cannot be read: Expecting property name enclosed in double quotes: line 1"),
        ("spec.json", "", r"spec\.json: cannot be read: Expecting value"),
        ("spec.json", YAML, r"spec\.json: cannot be read: Expecting value: line 1"),
        ("spec.yaml", "a: [1", r"spec\.yaml: cannot be read: while parsing a flow sequence .* line 1"),
        ("spec.yaml", "a: !!python/name:os.system", r"spec\.yaml: cannot be read: could not determine a constructor"),
        ("spec.yaml", "{[1]: 2}", r"spec\.yaml: cannot be read: .*unhashable"),
        ("spec.yaml", "", r"spec\.yaml: holds nothing; expected dataset, model and tracking at its top"),
        ("spec.yaml", "- a\n- b\n", r"spec\.yaml: holds a list; expected dataset, model and tracking at its top"),
        ("spec.json", "[]", r"spec\.json: holds a list; expected"),
        ("spec.json", '"text"', r"spec\.json: holds a str; expected"),
        ("spec.yaml", "3: 4", r"spec\.yaml: 3: unknown key; expected dataset, model and tracking at its top"),
        ("spec.json", '{"model": 1, "model": 2}', r"cannot be read: the key 'model' stands twice in one place"),
        ("spec.yaml", "model: {a: 1, a: 2}", r"cannot be read: the key 'a' stands twice in one place"),
        ("spec.yaml", b"\xff\xfe\x00", r"spec\.yaml: is no text; expected JSON or YAML in UTF-8"),
        ("spec.json", b'{"a": "\xe9"}', r"spec\.json: is no text"),
        ("spec.txt", JSON, r"spec\.txt: its name does not say what it is; expected \.json, \.yaml or \.yml at the end"),
        ("spec", JSON, r"spec: its name does not say what it is"),
        ("digits.zip", b"PK\x03\x04", r"digits\.zip: its name does not say what it is"),
    ],
)
def test_a_file_that_holds_no_spec_is_refused(written: Any, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        read_spec_file(written(name, content))

    assert len(caught.value.faults) == 1
    assert len(str(caught.value).splitlines()) == 2


def test_what_a_file_says_is_checked_as_a_dict_is(written: Any) -> None:
    text = YAML + "  training: {epochs: 1e-3, batch_sise: 3}\n"

    with pytest.raises(SpecError, match=r"epochs: got 0\.001; expected an integer .*\n.*did you mean 'batch_size'"):
        Experiment(**read_spec_file(written("spec.yaml", text)))
