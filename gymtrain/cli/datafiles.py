"""Files that stand in for the data which a bundle knows by their fingerprint alone, or by a path of then."""

from __future__ import annotations

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
        found = np.load(path, allow_pickle=False)
        return {name: found[name] for name in found.files}
    except (ValueError, EOFError, AttributeError) as error:
        raise typer.BadParameter(
            f"{path} does not hold arrays by name: {error}; write them with numpy.savez(path, X=X, y=y)",
            param_hint="--data",
        ) from error
