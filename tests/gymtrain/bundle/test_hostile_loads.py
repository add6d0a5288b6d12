from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest
from bundle_corpus import CASES
from bundle_forge import take_apart
from loading_corpus import MODULE, REFUSED, Case, changed, harmless
from trained_bundles import make
from typer.testing import CliRunner, Result

from gymtrain import BundleError, Trainer
from gymtrain.cli import app


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of a good bundle of each kind."""
    return {name: path.read_bytes() for name, path in make(tmp_path_factory.mktemp("trained")).items()}


@pytest.mark.parametrize("case", REFUSED, ids=[case.name for case in REFUSED])
def test_a_bundle_whose_content_is_hostile_is_refused_with_its_reason(
    case: Case, trained: dict[str, bytes], tmp_path: Path
):
    path = tmp_path / "hostile.zip"
    path.write_bytes(case.build(trained))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(BundleError, match=rf"(?s)^{re.escape(str(path))}.*({case.message})") as caught:
            Trainer.load(path)
    assert re.fullmatch(case.reason, caught.value.reason)
    assert list(tmp_path.iterdir()) == [path]


def test_the_corpus_has_as_many_files_as_the_catalogue_asks_for():
    families = {case.name.split()[0] for case in [*CASES, *REFUSED] if case.name.startswith("H")}

    assert len(CASES) + len(REFUSED) > 120
    # The others need no file of their own: a digest from elsewhere, paths that are no files, names of members, and
    # what lies in a directory of checkpoints.
    assert {f"H{number:02d}" for number in range(1, 53)} - families <= {"H13", "H14", "H18", "H25", "H32", "H46"}


AUDIT = textwrap.dedent(
    """
    import json, os, re, resource, sys, warnings
    from pathlib import Path
    import gymtrain
    from gymtrain import BundleError, Trainer
    from gymtrain.registry import KINDS, foreign_names, known_names
    from gymtrain.registry.libraries import LIBRARIES

    folder = Path(sys.argv[1])
    sys.path.append(str(folder / "path"))
    warnings.simplefilter("ignore")
    for path in sorted((folder / "good").iterdir()):
        trainer = Trainer.load(path)
        trainer.predict(trainer._predictor.examples)
    paths = sorted((folder / "hostile").iterdir())
    for path in paths[:: len(paths) // 9]:  # what an error of each library imports
        try:
            Trainer.load(path)
        except BundleError:
            pass
    [*map(known_names, KINDS), *map(foreign_names, LIBRARIES)]  # look through the installed packages, once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    modules, events, watching, current = set(sys.modules), [], False, ""
    # Looked at, and not done.
    harmless = {"object.__getattr__", "object.__setattr__", "sys._getframe", "mmap.__new__", "builtins.id"}
    ours = "".join(path.read_text() for path in Path(gymtrain.__file__).parent.rglob("*.py")).replace('"', "'")

    def is_ours(event, arguments):
        if event == "open":
            return str(arguments[0]) == current and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if event == "compile":  # annotations; what inspect makes of signatures; the literal in the header of an array
            text = arguments[0].decode() if isinstance(arguments[0], bytes) else str(arguments[0])
            return text in ours or re.match(r"def foo\\(.*\\): pass|{'descr': '", text)
        return event == "exec" and arguments[0].co_filename == "<string>"  # its compilation was looked at

    def watch(event, arguments):
        if watching and event not in harmless and not is_ours(event, arguments):
            events.append(event + str(arguments)[:200])

    sys.addaudithook(watch)
    outcomes = {}
    for path in paths:
        current = str(path)
        watching = True
        try:
            Trainer.load(path)
            outcome = "loaded"
        except BundleError as error:
            outcome = error.reason
        except Exception as error:
            outcome = repr(error)
        watching = False
        outcomes[path.name] = [outcome, events[:]]
        events.clear()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"outcomes": outcomes, "grown": grown, "modules": sorted(set(sys.modules) - modules)}))
    """
)


@pytest.mark.slow
def test_no_hostile_bundle_makes_a_trainer_import_run_open_write_connect_or_grow(
    trained: dict[str, bytes], tmp_path: Path
):
    for folder in ("good", "hostile", "path"):
        (tmp_path / folder).mkdir()
    (tmp_path / "path" / f"{MODULE}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    for name, content in trained.items():
        (tmp_path / "good" / f"{name}.zip").write_bytes(content)
    made = [(case.name, case.build(trained)) for case in REFUSED]
    made += [(name, content) for name, _, content in harmless(trained)]
    for index, (_, content) in enumerate(made):
        (tmp_path / "hostile" / f"{index:04d}.zip").write_bytes(content)

    done = subprocess.run([sys.executable, "-c", AUDIT, tmp_path], capture_output=True, text=True, check=True)

    told = json.loads(done.stdout)
    for index, (name, _) in enumerate(made):
        outcome, events = told["outcomes"][f"{index:04d}.zip"]
        assert not events, f"{name}: {events[0]}"
        assert outcome.isidentifier(), f"{name}: {outcome}"
        assert index >= len(REFUSED) or outcome != "loaded", name
    assert told["modules"] == []
    assert told["grown"] < 64 << 10  # KiB
    assert not (tmp_path / "imported").exists()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("name", ["H26", "H28", "H33", "H40", "H42", "H49", "H50"])
def test_the_command_line_says_why_and_exits_with_2(name: str, trained: dict[str, bytes], tmp_path: Path):
    (tmp_path / "rows.csv").write_text("a,b,c,d\n1,2,3,4\n")
    for case in [case for case in REFUSED if case.name.startswith(name)][:3]:
        (tmp_path / "hostile.zip").write_bytes(case.build(trained))

        result = run("predict", tmp_path / "hostile.zip", tmp_path / "rows.csv")

        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.startswith(f"Error: {tmp_path / 'hostile.zip'}: ")
        assert all(line.isprintable() for line in result.stderr.splitlines())


@pytest.mark.parametrize("name", ["H01 empty", "H02 50 %", "H05 duplicate", "H17 deflated 1000:1", "H37 manifest"])
def test_the_command_line_says_in_one_line_what_is_no_bundle(name: str, good: bytes, tmp_path: Path):
    case = next(case for case in CASES if case.name == name)
    (tmp_path / "hostile.zip").write_bytes(case.build(good))

    result = run("inspect", tmp_path / "hostile.zip")

    assert result.exit_code == 2
    assert re.fullmatch(rf"Error: .*hostile\.zip.*{case.message}.*\n", result.stderr)


EVIL = "\x1b[2J\x1b]0;title\x07\nError: all is well\r<script>alert(1)</script> %s {0.__class__} ${env:HOME} [bold red]"


def test_a_text_that_terminals_obey_is_shown_as_it_is(trained: dict[str, bytes], tmp_path: Path):
    """H41 and H42: in the places that are shown, whatever they are."""
    forge = take_apart(trained["frame"])
    for member, place, value in (
        ("schema.json", ("labels", "classes"), ["a", EVIL]),
        ("schema.json", ("features", "columns", 0, "name"), EVIL),
        ("schema.json", ("features", "left_out"), [EVIL]),
        ("results.json", ("metrics",), {f"train/{EVIL}": [1.0], f"val/{EVIL}": [EVIL]}),
        ("results.json", ("elapsed",), {EVIL: 1.0}),
        ("spec.json", ("model", "model", "type"), EVIL),
        ("spec.json", ("model", "training", EVIL), EVIL),
    ):
        changed(member, place, value)(forge)
    versions = {EVIL: EVIL}
    (tmp_path / "evil.zip").write_bytes(forge.set_manifest(created=EVIL, versions=versions).pack())

    (tmp_path / "rows.csv").write_text("a\n1\n")
    shown = run("inspect", tmp_path / "evil.zip")
    refused = run("predict", tmp_path / "evil.zip", tmp_path / "rows.csv")

    assert shown.exit_code == 0, shown.stderr
    assert all(line.isprintable() for line in shown.stdout.split("\n"))
    assert shown.stdout.count("%s {0.__class__} ${env:HOME} [bold red]") > 5
    assert refused.exit_code == 2
    assert all(line.isprintable() for line in refused.stderr.split("\n"))
    assert "%s {0.__class__} ${env:HOME} [bold red]" in refused.stderr
