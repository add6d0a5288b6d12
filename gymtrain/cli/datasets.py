"""The command that shows where rows may come from."""

from __future__ import annotations

import importlib.util
import inspect
import os
from pathlib import Path
from typing import Any

from gymtrain.cli.arguments import AsJson, find_modules_here, print_json


def datasets(as_json: AsJson = False) -> None:
    """Show the types of datasets: what they are, what they need, what is downloaded."""
    find_modules_here()
    from gymtrain.data.home import data_home
    from gymtrain.registry import known_names

    home = data_home().absolute()
    types = [_described(name, home) for name in known_names("dataset")]
    found = {"data_dir": str(home), "cached_bytes": _size(home), "mirror": _mirror(), "types": types}
    if as_json:
        print_json(found)
    else:
        _print(found)


def _mirror() -> str | None:
    from gymtrain.bundle.addresses import shown
    from gymtrain.data.downloads import VARIABLE

    mirror = os.environ.get(VARIABLE)
    return shown(mirror) if mirror else None


def _described(name: str, home: Path) -> dict[str, Any]:
    from gymtrain.registry import UnknownTypeError, find

    described: dict[str, Any] = {
        "type": name,
        "summary": "",
        "required": [],
        "optional": [],
        "extra": None,
        "installed": True,
        "download_bytes": 0,
        "cached_bytes": 0,
        "error": None,
    }
    try:
        target: Any = find("dataset", name)
        parameters = inspect.signature(target).parameters.values()
    except (UnknownTypeError, ValueError, TypeError) as error:  # of a plug-in
        return {**described, "error": str(error)}
    named = [each for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    package, folder = getattr(target, "package", None), getattr(target, "folder", "")
    return {
        **described,
        "summary": (inspect.getdoc(target) or "").split("\n\n")[0].replace("\n", " "),
        "required": [each.name for each in named if each.default is each.empty],
        "optional": [each.name for each in named if each.default is not each.empty],
        "extra": getattr(target, "extra", None),
        "installed": package is None or _is_installed(package),
        "download_bytes": sum(each.size for each in getattr(target, "downloads", ())),
        "cached_bytes": _size(home / folder) if folder else 0,
    }


def _is_installed(package: str) -> bool:
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None  # a folder that is called so is no package


def _size(folder: Path) -> int:
    sizes = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                sizes += os.lstat(os.path.join(place, name)).st_size
            except OSError:  # it went away meanwhile
                continue
    return sizes


def _print(found: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from gymtrain.cli.run_tables import wide_console
    from gymtrain.cli.terminal import printable

    console = wide_console()
    table = Table()
    for heading in ("type", "what it is", "needs"):
        table.add_column(heading, overflow="fold")
    for each in found["types"]:
        cells = each["type"], each["error"] or each["summary"], ", ".join(_needs(each))
        table.add_row(*(Text(printable(cell), "red" if each["error"] else "") for cell in cells))
    console.print(table)
    mirror = "" if found["mirror"] is None else f"; downloads come from {found['mirror']}"
    size = _readable(found["cached_bytes"])
    console.print(
        Text(printable(f"Downloaded data and decoded images lie in {found['data_dir']}, {size}{mirror}.")),
        soft_wrap=True,
    )


def _needs(described: dict[str, Any]) -> list[str]:
    needs = list(described["required"])
    if not described["installed"]:
        needs.append(f"pip install 'gymtrain[{described['extra']}]'")
    if described["download_bytes"]:
        needs.append(f"a download of {_readable(described['download_bytes'])}")
    if described["cached_bytes"]:
        needs.append(f"{_readable(described['cached_bytes'])} are there")
    return needs


def _readable(size: float) -> str:
    """Return a number of bytes in the unit that fits.

    Example:
        >>> _readable(824_887_076), _readable(0)
        ('787 MiB', '0 bytes')
    """
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
