"""Rows of any number, a block at a time: out of a file, or as they come."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gymtrain.data.frames import Frame
from gymtrain.data.image_forms import is_one_image
from gymtrain.data.images import SUFFIXES
from gymtrain.data.schema import Features, number_of_rows, row_blocks
from gymtrain.errors import InputError, some
from gymtrain.trainer.predictor import IMAGES_AT_A_TIME, Array

if TYPE_CHECKING:
    from gymtrain.data.tables import TableFile

MAX_BLOCK_ROWS = 2**31 - 1


def blocks_of(source: Any, features: Features, block_rows: int) -> Iterator[Any]:
    """Yield rows in blocks, of which one is in memory at a time.

    Args:
        source: The path of a CSV or Parquet file, or of an image or a directory of images; rows in any form; or
            anything else that can be iterated over, whose items are the blocks, or single images, which are gathered.
        features: What a row looks like.
        block_rows: The most rows of a block of a file or of rows.

    Raises:
        InputError: It is nothing of this, or not of the columns that `features` has.
    """
    if isinstance(block_rows, bool) or not isinstance(block_rows, int) or not 1 <= block_rows <= MAX_BLOCK_ROWS:
        raise InputError(f"block_rows: got {block_rows!r}; expected a whole number from 1 to {MAX_BLOCK_ROWS}")
    takes_images = features.are_images or features.are_pixels
    if isinstance(source, str | os.PathLike) and not (takes_images and _are_pictures(source, features)):
        return _blocks_of_file(Path(source), features, block_rows)
    if takes_images and isinstance(source, Iterable) and number_of_rows(source) is None:
        return _gathered(iter(source), min(block_rows, IMAGES_AT_A_TIME))
    if isinstance(source, Iterator):
        return source
    rows = features.known_form(source)
    if number_of_rows(rows) is not None:
        return row_blocks(rows, block_rows)
    if isinstance(source, Iterable):
        return iter(source)
    raise InputError(
        f"got a {type(source).__name__}; expected the path of a file, rows, or an iterator over blocks of rows"
    )


def _are_pictures(path: str | os.PathLike[str], features: Features) -> bool:
    """Tell whether a path is no table."""
    return features.are_images or os.path.isdir(path) or os.path.splitext(path)[1].lower() in SUFFIXES


def _gathered(source: Iterator[Any], size: int) -> Iterator[Any]:
    """Yield blocks as they come, and what comes as single images in blocks of up to `size`."""
    for are_single, group in groupby(source, is_one_image):
        while are_single and (block := list(islice(group, size))):
            yield block
        yield from group


def _blocks_of_file(path: Path, features: Features, block_rows: int) -> Iterator[Any]:
    from gymtrain.data.tables import TableFile, kind_of  # loads pyarrow, which other blocks do not need

    kind = kind_of(path)
    if kind is None:
        raise InputError(f"{str(path)!r} ends in neither .csv nor .parquet nor .pq; read it yourself, and give blocks")
    if not path.exists():
        raise InputError(f"there is no file {str(path)!r}")
    table = TableFile(path, kind)
    chunks = table.chunks(columns_to_read(features, table), None, block_rows)
    return (as_trained(chunk.features, features) for chunk in chunks)


def columns_to_read(features: Features, table: TableFile, besides: str | None = None) -> dict[str, str]:
    """Return the columns of a file that a model was trained on, with their kinds.

    Args:
        features: What a row looks like.
        table: The file.
        besides: A column that is no feature.

    Raises:
        InputError: One is not there, or there are too many for a model that takes them by position.
    """
    if features.columns is not None:
        table.require(list(features.columns), "which the model was trained on")
        return dict(features.columns)
    if table.seems_headless:
        raise InputError(
            f"the first line of {table.path} is numbers, {some(table.names)}; expected the names of columns, or the "
            f"row would be lost: put a line of names before it"
        )
    names = [name for name in table.names if name != besides]
    size = math.prod(features.shape)
    if len(names) != size:
        but = "" if besides is None else f" beside {besides!r}"
        raise InputError(
            f"{table.path} has {len(names)} columns{but}; the model was trained on rows of shape {features.shape}, "
            f"so expected {size} columns of numbers in the order of the training data, and nothing else"
        )
    return dict.fromkeys(names, "number")


def as_trained(frame: Frame, features: Features) -> Frame | Array:
    """Return rows of a file in the form of the training data."""
    return frame if features.columns is not None else frame.matrix().reshape(len(frame), *features.shape)


def answers(blocks: Iterator[Any], answer: Callable[[Any], Array]) -> Iterator[Array]:
    """Yield what is said of each block.

    Raises:
        InputError: Its rows do not fit the training data.
    """
    seen = 0
    for number, block in enumerate(blocks):
        try:
            answered = answer(block)
        except InputError as error:
            raise InputError(f"in block {number}, which begins with row {seen}: {error}") from error
        yield answered
        seen += len(answered)
