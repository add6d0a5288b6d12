from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import gymtrain
from gymtrain.bundle import format as bundle_format
from gymtrain.bundle.tensors import ITEM_BYTES

PACKAGE = Path(gymtrain.__file__).parent
PAGE = (Path(__file__).parents[3] / "docs" / "bundle-format.md").read_text(encoding="utf-8")


def documented(text: str) -> set[str]:
    """The code words in the first columns of the tables in a part of the page."""
    return set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))


def reasons_in(directory: Path) -> set[str]:
    """The reasons that the modules in a directory give as literals."""
    calls = (
        node
        for path in directory.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "BundleError"
    )
    values = (keyword.value for call in calls for keyword in call.keywords if keyword.arg == "reason")
    literals = (node for value in values for node in ast.walk(value) if isinstance(node, ast.Constant))
    return {literal.value for literal in literals}


def test_the_page_lists_the_reasons_that_the_room_gives_and_no_others():
    reasons, _ = PAGE.split("## Reasons")[1].split("Reasons that are given when")

    assert documented(reasons) == reasons_in(PACKAGE / "bundle")


def test_the_page_lists_every_reason_that_gymtrain_gives():
    assert reasons_in(PACKAGE) <= documented(PAGE.split("## Reasons")[1])


def test_the_page_lists_the_members_of_the_format():
    names = documented(PAGE.split("## Members")[1].split("###")[0])

    assert all(bundle_format.is_member(name) for name in names)
    assert {*bundle_format.REQUIRED, *bundle_format.MODEL} <= names


@pytest.mark.parametrize(
    "fact",
    [
        f"At most {bundle_format.MAX_MEMBERS} members",
        f"a central directory of at most {bundle_format.MAX_DIRECTORY_BYTES >> 20} MiB",
        f"a file of at most {bundle_format.MAX_FILE_BYTES >> 30} GiB",
        f"at most {bundle_format.MAX_RATIO} times as large",
        f"have at most {(bundle_format.max_bytes('spec.json') or 0) >> 20} MiB, other JSON "
        f"{(bundle_format.max_bytes('results.json') or 0) >> 20} MiB",
        f"Dtypes: `{' '.join(ITEM_BYTES)}`",
    ],
)
def test_the_page_states_the_limits_that_the_reader_has(fact: str):
    assert fact in " ".join(PAGE.split())
