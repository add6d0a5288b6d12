"""Specs in files: JSON and YAML."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from gymtrain.errors import Fault, SpecError, some


def read_spec_file(path: str | Path) -> dict[str, Any]:
    """Read the three dicts from a JSON or YAML file.

    Args:
        path: The file; its name ends in `.json`, `.yaml` or `.yml`.

    Raises:
        FileNotFoundError: There is no such file.
        SpecError: The file is neither JSON nor YAML, says something twice, or does not hold a dict.
    """
    path = Path(path)
    read = {".json": _read_json, ".yaml": _read_yaml, ".yml": _read_yaml}.get(path.suffix.lower())
    if read is None:
        raise _refusal(path, "its name does not say what it is; expected .json, .yaml or .yml at the end")
    try:
        # YAML and JSON are UTF-8; some editors put a mark before it.
        content = read(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise _refusal(path, "is no text; expected JSON or YAML in UTF-8") from error
    except ValueError as error:
        raise _refusal(path, f"cannot be read: {error}") from error
    if not isinstance(content, dict):
        held = "nothing" if content is None else f"a {type(content).__name__}"
        raise _refusal(path, f"holds {held}; expected dataset, model and tracking at its top")
    odd = [key for key in content if not isinstance(key, str)]
    if odd:
        raise _refusal(path, f"{some(odd)}: unknown key; expected dataset, model and tracking at its top")
    return content


def _refusal(path: Path, message: str) -> SpecError:
    return SpecError([Fault(str(path), message)])


def _read_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Refuse a key that stands twice: the parsers would let the last one win."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one place")
    return content


def _read_yaml(text: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML that reads 1e-3 as the number that everybody means by it (YAML 1.1 wants 1.0e-3)."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
            _once([(self.construct_object(key, deep=True), None) for key in own])
            return super().construct_mapping(node, deep=deep)

    number = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+][0-9]+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, TypeError) as error:
        # A TypeError is a list or a dict that stands as a key.
        raise ValueError(" ".join(str(error).split())) from error
