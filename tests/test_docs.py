from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest
import yaml

import gymtrain
from gymtrain.specs import Dataset, Experiment, Model, Tracking

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
SECTIONS = {"dataset": Dataset, "model": Model, "tracking": Tracking}

# What a page takes for granted; it stands in the place of its heading.
GIVEN = {"README.md": "from sklearn.datasets import load_digits; X = load_digits().data[:5]"}
SLOW = {
    "README.md",
    "data.md",
    "extending.md",
    "images.md",
    "places.md",
    "predicting.md",
    "provenance.md",
    "quickstart.md",
    "saving.md",
    "trackers.md",
    "training.md",
}


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def program(page: Path) -> str:
    """The python blocks of a page, each at its own lines, so that a traceback tells the line of the page."""
    lines, inside = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        fence = line.startswith("```")
        lines.append(line if inside and not fence else "")
        inside = line == "```python" if fence else inside
    lines[0] = GIVEN.get(page.name, "")
    return "\n".join(lines)


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings have on the web."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=name_of(page), marks=[pytest.mark.slow] if page.name in SLOW else [])
        for page in PAGES
        if blocks(page, "python")
    ],
)
def test_the_python_blocks_of_a_page_run_in_their_order(page, tmp_path):
    script = tmp_path / f"{page.stem}.py"
    script.write_text(program(page), encoding="utf-8")

    environment = {**os.environ, "GYMTRAIN_DATA": str(tmp_path / "data")}
    done = subprocess.run([sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, env=environment)

    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=name_of)
def test_the_yaml_blocks_of_a_page_are_valid_specs(page):
    for block in blocks(page, "yaml"):
        spec = yaml.safe_load(block)
        if {"dataset", "model"} <= set(spec):
            Experiment(**spec)
        else:
            assert [SECTIONS[name](**section) for name, section in spec.items()]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_links_of_a_page_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.is_file(), f"{target} leads nowhere"
        assert not anchor or anchor in anchors(linked), f"{target}: {linked.name} has no such heading"


def test_the_tables_of_the_spec_page_are_those_of_the_code():
    reference = importlib.util.spec_from_file_location("spec_reference", ROOT / "docs" / "spec_reference.py")
    module = importlib.util.module_from_spec(reference)
    reference.loader.exec_module(module)
    page = module.PAGE.read_text(encoding="utf-8")

    assert module.refreshed(page) == page, "run: .venv/bin/python docs/spec_reference.py"


def test_the_faults_that_the_spec_page_shows_are_those_that_are_raised(tmp_path):
    page = ROOT / "docs" / "spec.md"
    script = tmp_path / "spec.py"
    script.write_text(program(page), encoding="utf-8")

    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)

    assert done.stdout in blocks(page, "text")


def test_the_newest_version_of_the_changelog_is_the_one_of_the_package():
    versions = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert versions[0] == gymtrain.__version__


def test_every_public_name_is_in_the_docs():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)

    assert [name for name in gymtrain.__all__ if name not in text] == []


@pytest.mark.slow
def test_the_pictures_of_the_page_on_images_are_drawn_by_one_command(tmp_path):
    command = [sys.executable, ROOT / "docs" / "pictures.py", tmp_path]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT / "tests")})

    drawn = {path.name for path in tmp_path.iterdir()}
    shown = set(re.findall(r"\]\(images/([^)]+)\)", (ROOT / "docs" / "images.md").read_text()))
    assert drawn == shown
    for path in tmp_path.iterdir():
        with PIL.Image.open(path) as picture:
            assert picture.width > 500
