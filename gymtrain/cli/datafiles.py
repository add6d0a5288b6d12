"""Files that stand in for the data which a bundle knows by their fingerprint alone, or by a path of then."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import typer

from gymtrain.data.sources import read_table


def arguments_from(path: Path, dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of a dataset that are to be used instead of those of its spec.

    Args:
        path: A table for datasets of frames and files; for arrays, what `numpy.savez` writes, under their names.
        dataset: The spec of the dataset.

    Raises:
        DataError: The table cannot be read.
        typer.BadParameter: The dataset is of no such kind, or the file is not of the kind that it needs.
    """
    match dataset["type"]:
        case "csv" | "parquet":
            return {"path": str(path)}
        case "dataframe":
            return {"data": read_table(path, "csv" if path.suffix.lower() == ".csv" else "parquet")}
        case "arrays":
            return _arrays(path)
    raise typer.BadParameter(
        f"a dataset of type {dataset['type']!r} takes no file; leave it out, or call Trainer.reproduce",
        param_hint="--data",
    )


def _arrays(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            found = np.load(file, allow_pickle=False)
            arrays = {name: found[name] for name in found.files}
    except (ValueError, EOFError, AttributeError, zipfile.BadZipFile, KeyError):
        arrays = {}
    # numpy's own advice would be to take a pickle, which runs code; and of another zip it gives bytes.
    if not arrays or not all(isinstance(each, np.ndarray) for each in arrays.values()):
        message = f"{path} does not hold arrays by name, and no objects; write them with numpy.savez(path, X=X, y=y)"
        raise typer.BadParameter(message, param_hint="--data")
    return arrays
