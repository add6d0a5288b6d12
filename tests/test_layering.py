"""Which module may import which: section 2 of the design, held by walking the imports."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {
    "torch",
    "torchmetrics",
    "mlflow",
    "tensorboard",
    "sklearn",
    "skops",
    "pandas",
    "polars",
    "pyarrow",
    "kornia",
    "matplotlib",
    "comet_ml",
    "wandb",
    "fsspec",
    "PIL",
    "h5py",
    "datasets",
}

# What each room imports of ours, beside itself.
ALLOWED = {
    "gymtrain": set(),
    "errors": set(),
    "web": set(),
    "registry": {"errors"},
    "specs": {"errors", "registry"},
    "hardware": {"errors"},
    "data": {"errors", "web", "registry", "specs"},
    "models": {"errors", "registry", "specs", "data"},
    "training": {"errors", "registry", "specs", "data", "models"},
    "bundle": {"errors", "web"},
    "tracking": {"errors", "specs", "gymtrain_trackers"},
    "figures": {"errors"},
    "trainer": {
        "errors",
        "registry",
        "specs",
        "hardware",
        "data",
        "models",
        "training",
        "bundle",
        "tracking",
        "figures",
    },
    "__main__": {"cli"},
    "cli": {"gymtrain", "errors", "registry", "specs", "hardware", "data", "training", "bundle", "tracking", "trainer"},
    "serving": {"errors", "trainer"},
    "gymtrain_trackers": set(),
}


@dataclass(frozen=True)
class Import:
    """One import: which module, what it imports, and when."""

    module: str
    target: str
    when: str
    """`"module"`: as the module is imported; `"function"`: when a function runs; `"typing"`: for type checkers."""

    def __str__(self) -> str:
        return f"{self.module} imports {self.target} ({self.when})"


@cache
def modules() -> dict[str, Path]:
    found = {}
    for folder in (ROOT, ROOT / "trackers"):
        for package in ("gymtrain", "gymtrain_trackers"):
            for path in sorted((folder / package).rglob("*.py")):
                parts = path.relative_to(folder).with_suffix("").parts
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports() -> list[Import]:
    found: list[Import] = []
    for module, path in modules().items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node, when in _walk(tree, "module"):
            found += [Import(module, target, when) for target in _targets(node, package)]
    return found


def _walk(node: ast.AST, when: str) -> Iterator[tuple[ast.AST, str]]:
    for child in ast.iter_child_nodes(node):
        inner = when
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and when == "module":
            inner = "function"
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            inner = "typing"
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, inner
        yield from _walk(child, inner)


def _targets(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (name.name for name in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], *filter(None, [node.module])])
        base = base if node.level else node.module or ""
        for name in node.names:
            # `from gymtrain.bundle import format` imports a module, `from gymtrain.specs import Dataset` a name.
            yield f"{base}.{name.name}" if f"{base}.{name.name}" in modules() else base


def room(module: str) -> str | None:
    """Return the room that a module lies in; None for what is not ours."""
    top, *rest = module.split(".")
    if top == "gymtrain_trackers":
        return top
    if top != "gymtrain":
        return None
    return rest[0] if rest else "gymtrain"


def ours(*, typing: bool = False) -> list[Import]:
    return [each for each in imports() if room(each.target) and (typing or each.when != "typing")]


def test_the_walk_sees_the_imports_that_are_known_to_be_there() -> None:
    seen = {(each.module, each.target, each.when) for each in imports()}

    assert ("gymtrain.specs.section", "gymtrain.errors", "module") in seen
    assert ("gymtrain.trainer.trainer", "gymtrain.trainer.saving", "function") in seen
    assert ("gymtrain", "gymtrain.trainer", "typing") in seen
    assert ("gymtrain_trackers.group", "gymtrain_trackers.tracker", "module") in seen


def test_every_room_has_its_rule() -> None:
    assert {room(module) for module in modules()} == set(ALLOWED)


@pytest.mark.parametrize("name", ALLOWED)
def test_a_room_imports_only_what_lies_below_it(name: str) -> None:
    wrong = [
        str(each) for each in ours() if room(each.module) == name and room(each.target) not in {name, *ALLOWED[name]}
    ]

    assert wrong == []


def test_also_for_type_checkers_nothing_looks_up_to_the_trainer() -> None:
    users = {room(each.module) for each in ours(typing=True) if room(each.target) == "trainer"}

    assert users <= {"gymtrain", "trainer", "cli", "serving"}


def test_only_tracking_imports_the_trackers() -> None:
    users = {room(each.module) for each in ours(typing=True) if room(each.target) == "gymtrain_trackers"}

    assert users == {"tracking", "gymtrain_trackers"}


@pytest.mark.parametrize("name", ["loop", "batches", "evaluation", "best", "callbacks"])
def test_the_loop_sees_neither_a_spec_nor_a_tracker(name: str) -> None:
    below = {each.target for each in ours(typing=True) if each.module == f"gymtrain.training.{name}"}

    assert {room(target) for target in below} & {"specs", "tracking", "trainer", "gymtrain_trackers"} == set()


def test_training_knows_components_and_no_other_part_of_a_spec() -> None:
    seen = {each.target for each in ours(typing=True) if room(each.module) == "training"}

    assert {target for target in seen if room(target) == "specs"} <= {"gymtrain.specs.components"}


def test_the_bundle_needs_numpy_and_nothing_else_that_is_installed() -> None:
    import sys

    outside = {each.target.split(".")[0] for each in imports() if room(each.module) == "bundle"}

    # The last two are for bundles elsewhere, and for signatures.
    assert outside - set(sys.stdlib_module_names) <= {"gymtrain", "numpy", "fsspec", "cryptography"}


def test_cryptography_is_imported_where_a_signature_is_made_or_checked_alone() -> None:
    users = {
        (each.module, each.when)
        for each in imports()
        if each.target.startswith("cryptography") and each.when != "typing"
    }

    assert users == {("gymtrain.bundle.signing", "function")}


@pytest.mark.parametrize(
    "name",
    ["gymtrain", "errors", "registry", "specs", "hardware", "bundle", "tracking", "figures", "gymtrain_trackers"],
)
def test_a_light_room_loads_no_heavy_package_when_it_is_imported(name: str) -> None:
    heavy = [
        str(each)
        for each in imports()
        if room(each.module) == name and each.when == "module" and each.target.split(".")[0] in HEAVY
    ]

    assert heavy == []


def test_the_command_line_loads_neither_torch_nor_mlflow_before_a_command_runs() -> None:
    heavy = [
        str(each)
        for each in imports()
        if each.module == "gymtrain.cli" and each.when == "module" and each.target.split(".")[0] in HEAVY
    ]

    assert heavy == []


def test_what_specs_are_checked_against_loads_neither_torch_nor_mlflow() -> None:
    from gymtrain.registry import BUILTIN

    homes = {location.partition(":")[0] for names in BUILTIN.values() for location in names.values()}
    graph = {
        module: {each.target for each in ours() if each.module == module and each.when == "module"}
        for module in modules()
    }
    reached, waiting = set(), list(homes)
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += graph[module]
    heavy = [
        str(each)
        for each in imports()
        if each.module in reached and each.when == "module" and each.target.split(".")[0] in HEAVY
    ]

    assert heavy == []


@pytest.mark.parametrize("when", [{"module"}, {"module", "function"}], ids=["on import", "ever"])
def test_no_modules_import_one_another_in_a_circle(when: set[str]) -> None:
    graph: dict[str, set[str]] = {module: set() for module in modules()}
    for each in ours():
        # A package that gathers the names of its modules is no circle: its modules do not import it.
        if each.when in when and each.module != each.target:
            graph[each.module].add(each.target)

    order = list(graphlib.TopologicalSorter(graph).static_order())

    assert set(order) >= set(modules())
