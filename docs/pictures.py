"""Draws the pictures of docs/images.md, from photos that ship inside scikit-learn: `make pictures`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageDraw
import torch
from sklearn.datasets import load_sample_images

from gymtrain.data.augmentors import Augmentation
from gymtrain.data.image_preprocessors import ImageResize
from gymtrain.registry import BUILTIN, find

IMAGES = Path(__file__).parent / "images"
SIDE, GAP, CAPTION = 88, 4, 14
SAMPLES = 4  # of each augmentor
COLUMNS = 3  # of augmentors

Pixels = npt.NDArray[np.uint8]


def photos() -> Pixels:
    """Return the photos of scikit-learn, a temple and a flower: uint8 (2, SIDE, SIDE, 3)."""
    temple, flower = load_sample_images().images
    resize = ImageResize(width=SIDE, height=SIDE, aspect="crop")
    return resize.transform(np.stack([temple, flower]))


def augmented(name: str, images: Pixels) -> Pixels:
    """Return what an augmentor makes of images when it changes all of them."""
    augmentor = find("augmentor", name)()
    augmentor.probability = 1.0
    augmentation = Augmentation([augmentor], seed=0, pixel_range=(0.0, 255.0))
    batch = augmentation(torch.from_numpy(images).float(), epoch=1, ids=torch.arange(len(images)))
    if augmentation.mixes:
        batch, _ = augmentation.mix(
            batch, torch.eye(2)[torch.arange(len(images)) % 2], epoch=1, ids=torch.arange(len(images))
        )
    return batch.clamp(0, 255).round().byte().numpy()


def grid(rows: list[tuple[str, Pixels]]) -> PIL.Image.Image:
    """Lay out rows of images, each with its name above, in a few columns."""
    lines = -(-len(rows) // COLUMNS)
    width, height = SAMPLES * (SIDE + GAP) + 4 * GAP, SIDE + CAPTION + 2 * GAP
    page = PIL.Image.new("RGB", (COLUMNS * width, lines * height), "white")
    pen = PIL.ImageDraw.Draw(page)
    for position, (name, images) in enumerate(rows):
        left, top = (position // lines) * width, (position % lines) * height
        pen.text((left, top), name, fill="black")
        for column, image in enumerate(images):
            page.paste(PIL.Image.fromarray(image), (left + column * (SIDE + GAP), top + CAPTION))
    return page


def main(folder: Path) -> None:
    """Draw all of them into a folder."""
    images = np.concatenate([photos()] * (SAMPLES // 2))
    rows = [("as they are", images), *((name, augmented(name, images)) for name in sorted(BUILTIN["augmentor"]))]
    grid(rows).save(folder / "augmentors.jpg", quality=80, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES)
