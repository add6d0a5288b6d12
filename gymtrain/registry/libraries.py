"""Signatures of classes in libraries that a spec may name, read without importing the library.

A spec is checked in milliseconds, and `import torch` takes seconds. Python can parse a module that it has not imported:
which optimizers there are and which arguments they take is read from the installed source itself, so that it is right
for the version that is installed.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Library:
    """A package whose public classes may be named.

    Args:
        modules: Where its classes are listed; `package.*` for all that lie in it.
        ours: Arguments of constructors that the spec does not give, because they follow from the data.
        offered: A pattern that the names of the classes match in full.
        adapter: Our class that is made in place of one of the library, with its name and its arguments.
    """

    modules: tuple[str, ...]
    ours: frozenset[str] = frozenset()
    offered: str = ".*"
    adapter: str | None = None


LIBRARIES: dict[str, Library] = {
    # Left out: LBFGS evaluates the loss several times in a step, SparseAdam takes sparse gradients alone.
    "optimizer": Library(
        ("torch.optim",), frozenset({"params", "capturable", "differentiable"}), r"(?!Optimizer$|LBFGS$|SparseAdam$).*"
    ),
    # Left out: what takes functions, a metric or other schedulers; ours does the same.
    "schedule": Library(
        ("torch.optim.lr_scheduler",),
        frozenset({"optimizer", "last_epoch"}),
        r"(?!(LRScheduler|LambdaLR|MultiplicativeLR|ReduceLROnPlateau|SequentialLR|ChainedScheduler)$).*",
        "gymtrain.training.composed_schedules:TorchSchedule",
    ),
    "loss": Library(
        ("torch.nn.modules.loss",),
        frozenset({"size_average", "reduce", "reduction", "weight", "pos_weight"}),
        "BCEWithLogitsLoss|CrossEntropyLoss|NLLLoss|MultiLabelSoftMarginLoss"
        "|MSELoss|L1Loss|SmoothL1Loss|HuberLoss|PoissonNLLLoss",
    ),
    # Those whose value is one number; the task decides between Binary…, Multiclass… and Multilabel….
    "metric": Library(
        ("torchmetrics.classification", "torchmetrics.regression"),
        frozenset({"task", "num_classes", "num_labels", "num_outputs", "multidim_average", "kwargs"}),
        r"(?!Binary|Multiclass|Multilabel)(?!ROC$|.*(Curve|Matrix|StatScores|Fixed|SensitivityAt|SpecificityAt|Divergence)).*",
    ),
    "estimator": Library(("sklearn.*",), offered="[^_]+"),
}


class NoSource:
    """Stands for a default that is not a literal, so that it cannot be read from the source."""


@dataclass(frozen=True)
class ForeignClass:
    """A class of a library.

    Args:
        name: Its own name.
        module: The module that defines it.
        arguments: For each argument `(default,)`, or `()` where there is none.
        adapter: Our class that is made in its place, with its name and its arguments.
    """

    name: str
    module: str
    arguments: dict[str, tuple[Any, ...]]
    adapter: str | None = None

    def has_method(self, name: str) -> bool:
        """Tell whether the class has a method, inherited ones included."""
        return _method(self.module, self.name, name) is not None


def find_foreign(library: str, name: str) -> ForeignClass | None:
    """Return the class of the library with this name, whatever its case and underscores; None when there is none.

    Example:
        >>> find_foreign("optimizer", "adam").name
        'Adam'
        >>> sorted(find_foreign("optimizer", "rms_prop").arguments)[:3]
        ['alpha', 'centered', 'eps']
    """
    found = _index(library).get(_plain(name))
    if found is None:
        return None
    class_name, module = found
    constructor = _method(module, class_name, "__new__", "__init__")
    arguments = {} if constructor is None else _listed_arguments(constructor)
    own = {key: value for key, value in arguments.items() if key not in LIBRARIES[library].ours}
    return ForeignClass(class_name, module, own, LIBRARIES[library].adapter)


def foreign_names(library: str) -> list[str]:
    """Return the names of the public classes of a library, sorted."""
    return sorted(class_name for class_name, _ in _index(library).values())


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


@cache
def _index(library: str) -> dict[str, tuple[str, str]]:
    """Map plain names to (class name, module that defines it)."""
    index: dict[str, tuple[str, str]] = {}
    for listed in LIBRARIES[library].modules:
        for module in _submodules(listed[:-2]) if listed.endswith(".*") else (listed,):
            for class_name, defining in _public_classes(module):
                if re.fullmatch(LIBRARIES[library].offered, class_name):
                    index.setdefault(_plain(class_name), (class_name, defining))
    return index


# Parts of scikit-learn that hold no estimators of its own.
_ASIDE = {"base", "conftest", "datasets", "exceptions", "externals", "tests", "utils"}


def _submodules(package: str) -> list[str]:
    """Return the public modules and packages that lie in a package."""
    folder = _source_path(package).parent
    names = [path.parent.name for path in folder.glob("*/__init__.py")] + [path.stem for path in folder.glob("*.py")]
    return [f"{package}.{name}" for name in sorted(names) if not name.startswith("_") and name not in _ASIDE]


def _public_classes(module: str) -> list[tuple[str, str]]:
    """Return (class name, defining module) for the classes that a module defines or imports from beside it."""
    classes = []
    for node in _parse(module).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            classes.append((node.name, module))
        elif isinstance(node, ast.ImportFrom):
            source = _imported_from(module, node)
            # What is compiled has no source to read arguments from.
            if source.startswith(f"{module}.") and _source_path(source).is_file():
                classes += [(name.name, source) for name in node.names if name.name[0].isupper()]
    return classes


def _imported_from(module: str, node: ast.ImportFrom) -> str:
    """Return the full name of the module that a `from … import` names."""
    if not node.level:
        return node.module or ""
    above = node.level - (_source_path(module).name == "__init__.py")
    package = module.split(".")[: len(module.split(".")) - above]
    return ".".join([*package, *([node.module] if node.module else [])])


@cache
def _source_path(module: str) -> Path:
    """Find a module's file. Only the top package is looked up by Python: looking up more would import the package."""
    top, *parts = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {top!r}", name=top)
    folder = Path(spec.origin).parent.joinpath(*parts)
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")


@cache
def _parse(module: str) -> ast.Module:
    path = _source_path(module)
    return ast.parse(path.read_text(encoding="utf-8") if path.is_file() else "")


def _class_definition(module: str, name: str) -> tuple[str, ast.ClassDef] | None:
    """Return a class and the module that defines it, following imports within the library."""
    for node in _parse(module).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom):
            source = _imported_from(module, node)
            for imported in node.names:
                if name == (imported.asname or imported.name) and source.split(".")[0] == module.split(".")[0]:
                    return _class_definition(source, imported.name)
    return None


def _method(module: str, name: str, *wanted: str) -> ast.FunctionDef | None:
    """Return the first of several methods that a class has, or else those of its bases in the same library."""
    found = _class_definition(module, name)
    if found is None:
        return None
    defining, definition = found
    own = {node.name: node for node in definition.body if isinstance(node, ast.FunctionDef)}
    for each in wanted:
        if each in own:
            return own[each]
    # The source of a base is read only where it is needed: parsing a large module takes tens of milliseconds.
    inherited = (_method(defining, base.id, *wanted) for base in definition.bases if isinstance(base, ast.Name))
    return next(filter(None, inherited), None)


def _listed_arguments(constructor: ast.FunctionDef) -> dict[str, tuple[Any, ...]]:
    """Return `()` for a required argument, `(default,)` for the others."""
    listed = constructor.args
    positional = [argument.arg for argument in (*listed.posonlyargs, *listed.args)][1:]
    defaults = [
        (),
    ] * (len(positional) - len(listed.defaults)) + [(_literal(each),) for each in listed.defaults]
    keywords = [argument.arg for argument in listed.kwonlyargs]
    keyword_defaults = [() if each is None else (_literal(each),) for each in listed.kw_defaults]
    return dict(zip([*positional, *keywords], [*defaults, *keyword_defaults], strict=True))


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):  # such as 1.0 / 3
        parts = _literal(node.left), _literal(node.right)
        return parts[0] / parts[1] if all(isinstance(part, int | float) for part in parts) else NoSource
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return NoSource
    return list(value) if isinstance(value, tuple) else value
