"""Packages that only some datasets need."""

from __future__ import annotations

import importlib
from typing import Any

from gymtrain.errors import MissingDependencyError


def import_extra(package: str, extra: str) -> Any:
    """Import a package that one of the extras of gymtrain brings.

    Raises:
        MissingDependencyError: It is not installed.

    Example:
        >>> import_extra("no_such_package", "hdf5")
        Traceback (most recent call last):
        gymtrain.errors.MissingDependencyError: the dataset needs the package no_such_package, which is not installed; \
pip install 'gymtrain[hdf5]'
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingDependencyError(
            f"the dataset needs the package {package}, which is not installed; pip install 'gymtrain[{extra}]'"
        ) from error
