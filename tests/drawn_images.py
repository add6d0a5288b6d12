"""Pictures of shapes on noise, which a small network learns to tell apart: circles and squares."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw


def drawn(kind: str, seed: int, size: tuple[int, int] = (48, 40)) -> PIL.Image.Image:
    """Draw a bright circle or square somewhere on dark noise; `size` is width and height."""
    rng = np.random.default_rng(seed)
    width, height = size
    image = PIL.Image.fromarray(rng.integers(0, 60, (height, width, 3), dtype=np.uint8))
    side = int(min(size) * rng.uniform(0.4, 0.6))
    left, top = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
    colour = tuple(rng.integers(180, 256, 3).tolist())
    draw = PIL.ImageDraw.Draw(image)
    (draw.ellipse if kind == "circle" else draw.rectangle)((left, top, left + side, top + side), fill=colour)
    return image


def encoded(image: PIL.Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """Return an image as the bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def folder_of_images(root: Path, rows: int = 40, size: tuple[int, int] = (48, 40)) -> Path:
    """Write as many JPEGs, half of them `circle/…jpg` and half `square/…jpg`, of sizes that differ a little."""
    for row in range(rows):
        kind = ("circle", "square")[row % 2]
        (root / kind).mkdir(parents=True, exist_ok=True)
        slightly = (size[0] + row % 3, size[1] + row % 2)
        (root / kind / f"{row:03d}.jpg").write_bytes(encoded(drawn(kind, row, slightly), quality=90))
    return root
