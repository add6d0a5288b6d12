"""Draws the pictures of docs/images.md: `make pictures`.

They are of photos that ship inside scikit-learn, and of a network that learns to tell drawn circles from squares.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageDraw
import torch
from drawn_images import drawn, folder_of_images
from sklearn.datasets import load_sample_images

from gymtrain import Trainer
from gymtrain.data.augmentors import Augmentation
from gymtrain.data.image_preprocessors import ImageResize
from gymtrain.registry import BUILTIN, find
from gymtrain.specs import Experiment
from gymtrain.trainer.preview import preview

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


def trained(folder: Path) -> Trainer:
    """Return a trainer that tells circles from squares, whose files are in `folder`."""
    trainer = Trainer(
        dataset={
            "dataset": {"type": "image_folder", "path": str(folder_of_images(folder / "shapes", 240))},
            "preprocessors": [{"type": "image_resize", "width": 32, "height": 32}, {"type": "divide"}],
            "data_augmentors": [{"type": "flip"}, {"type": "rotate_range"}, {"type": "random_color"}],
        },
        model={"model": {"type": "cnn", "channels": [8, 16]}, "training": {"epochs": 10}},
        tracking={"root": str(folder / "runs"), "trackers": []},
    )
    trainer.train()
    return trainer


def where_it_looks(trainer: Trainer) -> PIL.Image.Image:
    """Show images above what the network looks at in them."""
    shapes = [drawn(("circle", "square")[row % 2], 1000 + row, (96, 96)) for row in range(8)]
    maps = trainer.saliency(shapes, samples=30, overlay=True)
    page = PIL.Image.new("RGB", (len(shapes) * (96 + GAP), 2 * (96 + GAP)), "white")
    for column, (shape, seen) in enumerate(zip(shapes, maps, strict=True)):
        page.paste(shape, (column * (96 + GAP), 0))
        page.paste(PIL.Image.fromarray(seen).resize((96, 96)), (column * (96 + GAP), 96 + GAP))
    return page


def main(folder: Path) -> None:
    """Draw all of them into a folder."""
    images = np.concatenate([photos()] * (SAMPLES // 2))
    rows = [("as they are", images), *((name, augmented(name, images)) for name in sorted(BUILTIN["augmentor"]))]
    grid(rows).save(folder / "augmentors.jpg", quality=80, optimize=True)
    with tempfile.TemporaryDirectory() as place:
        trainer = trained(Path(place))
        where_it_looks(trainer).save(folder / "saliency.jpg", quality=85, optimize=True)
        preview(Experiment(**trainer.to_dict()), samples=6, epochs=3).savefig(folder / "preview.png", dpi=80)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES)
