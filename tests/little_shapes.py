"""Pictures of drawn shapes: what a small network can tell apart within seconds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

KINDS = ("circle", "cross", "square", "stripes")


def shapes(rows: int, size: int = 16, kinds: tuple[str, ...] = KINDS, seed: int = 0) -> tuple[npt.NDArray, npt.NDArray]:
    """Return pictures of shapes in any place, size and colour, float32 (rows, size, size, 3) from 0 to 1, and kinds."""
    random = np.random.default_rng(seed)
    down, right = np.mgrid[:size, :size].astype(np.float32)
    pictures, labels = [], []
    for row in range(rows):
        kind = kinds[row % len(kinds)]
        radius = random.uniform(0.2, 0.32) * size
        y, x = (random.uniform(radius, size - 1 - radius) for _ in range(2))
        away_y, away_x = np.abs(down - y), np.abs(right - x)
        box = np.maximum(away_y, away_x) <= radius
        inside = {
            "circle": np.hypot(away_y, away_x) <= radius,
            "cross": box & (np.minimum(away_y, away_x) <= radius / 3),
            "square": box,
            "stripes": box & (np.floor(away_y / 1.5) % 2 == 0),
        }[kind]
        ground, colour = random.uniform(0, 0.4, 3), random.uniform(0.6, 1, 3)
        picture = np.where(inside[..., None], colour, ground) + random.normal(0, 0.05, (size, size, 3))
        pictures.append(picture.clip(0, 1))
        labels.append(kind)
    return np.array(pictures, np.float32), np.array(labels)
