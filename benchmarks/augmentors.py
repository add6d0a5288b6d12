"""Chains of five augmentors against kornia, one augmentor at a time, and Pillow, one image at a time.

All do the same five, each for half of the samples, and each time by a new amount: one chain has a flip and two
interpolations, the other three interpolations. kornia is fed float32 batches of shape (rows, channels, height, width)
from 0 to 1, which suits it best, and Pillow images of 8 bits, which are not converted from and to arrays.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter

import torch
from _measure import arguments_parser, header, interleaved, ratios, spread_text, table
from PIL import Image, ImageEnhance

from gymtrain.data.augmentors import (
    Augmentation,
    Flip,
    RandomBrightness,
    RandomColor,
    RandomContrast,
    RotateRange,
    Shear,
    Zoom,
)

CHAINS = (("flip", "turn", "zoom", "brightness", "contrast"), ("turn", "shear", "zoom", "brightness", "colour"))
SIZES, BATCHES = (32, 100), (64, 256)
DEGREES, ZOOM, FACTORS = 15.0, (1.0, 1.3), (0.6, 1.4)


def of_gymtrain(images: torch.Tensor, chain: Sequence[str]) -> Callable[[], object]:
    """Return what augments the batch, as a training does it, in epoch after epoch."""
    augmentors = {
        "flip": Flip(0.5),
        "turn": RotateRange(0.5, max_left_rotation=DEGREES, max_right_rotation=DEGREES),
        "shear": Shear(0.5, max_shear_left=DEGREES, max_shear_right=DEGREES),
        "zoom": Zoom(0.5, *ZOOM),
        "brightness": RandomBrightness(0.5, *FACTORS),
        "contrast": RandomContrast(0.5, *FACTORS),
        "colour": RandomColor(0.5, *FACTORS),
    }
    augmentation = Augmentation([augmentors[name] for name in chain], seed=0)
    ids = torch.arange(len(images), device=images.device)
    epoch = iter(range(1, 10**9))
    return lambda: augmentation(images, next(epoch), ids)


def of_kornia(images: torch.Tensor, chain: Sequence[str]) -> Callable[[], object]:
    """Return the same in kornia, one augmentor after the other."""
    from kornia import augmentation as kornia

    augmentors = {
        "flip": kornia.RandomHorizontalFlip(p=0.5),
        "turn": kornia.RandomRotation(DEGREES, p=0.5),
        "shear": kornia.RandomShear(DEGREES, p=0.5),
        "zoom": kornia.RandomAffine(0.0, scale=ZOOM, p=0.5),
        "brightness": kornia.RandomBrightness(FACTORS, p=0.5),
        "contrast": kornia.RandomContrast(FACTORS, p=0.5),
        "colour": kornia.RandomSaturation(FACTORS, p=0.5),
    }
    one_by_one = torch.nn.Sequential(*(augmentors[name] for name in chain))
    planes = (images / 255).movedim(-1, 1).contiguous()

    @torch.no_grad()
    def augment() -> object:
        return one_by_one(planes)

    return augment


def of_pillow(images: torch.Tensor, chain: Sequence[str]) -> Callable[[], object]:
    """Return the same with Pillow, image by image."""
    pictures = [Image.fromarray(image) for image in images.to(torch.uint8).cpu().numpy()]
    draw = random.Random(0)
    width = height = images.shape[1]

    def sheared(picture: Image.Image) -> Image.Image:
        slope = math.tan(math.radians(draw.uniform(-DEGREES, DEGREES)))
        matrix = (1, slope, -slope * height / 2, 0, 1, 0)
        return picture.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)

    def zoomed(picture: Image.Image) -> Image.Image:
        edge = (1 - 1 / draw.uniform(*ZOOM)) / 2
        box = (width * edge, height * edge, width * (1 - edge), height * (1 - edge))
        return picture.resize((width, height), Image.Resampling.BILINEAR, box)

    augmentors: dict[str, Callable[[Image.Image], Image.Image]] = {
        "flip": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "turn": lambda picture: picture.rotate(draw.uniform(-DEGREES, DEGREES), Image.Resampling.BILINEAR),
        "shear": sheared,
        "zoom": zoomed,
        "brightness": lambda picture: ImageEnhance.Brightness(picture).enhance(draw.uniform(*FACTORS)),
        "contrast": lambda picture: ImageEnhance.Contrast(picture).enhance(draw.uniform(*FACTORS)),
        "colour": lambda picture: ImageEnhance.Color(picture).enhance(draw.uniform(*FACTORS)),
    }

    def augmented(picture: Image.Image) -> Image.Image:
        for name in chain:
            if draw.random() < 0.5:
                picture = augmentors[name](picture)
        return picture

    return lambda: [augmented(picture) for picture in pictures]


def speed_of(augment: Callable[[], object], count: int, seconds: float, device: torch.device) -> float:
    """Return images per second, over batch after batch until so much time has passed."""
    done, started = 0, perf_counter()
    while perf_counter() - started < seconds:
        augment()
        done += count
        if device.type == "cuda":
            torch.cuda.synchronize()
    return done / (perf_counter() - started)


def measured(
    chain: Sequence[str], size: int, count: int, rounds: int, seconds: float, device: torch.device
) -> list[list[str]]:
    """Return the rows of the table for a size of images and of batches."""
    images = (torch.rand(count, size, size, 3, generator=torch.Generator().manual_seed(0)) * 255).round().to(device)
    contenders = {
        "kornia, one augmentor at a time": of_kornia(images, chain),
        "Pillow, one image at a time": of_pillow(images, chain),
        "gymtrain": of_gymtrain(images, chain),
    }
    speeds = interleaved(
        {name: partial(speed_of, each, count, seconds, device) for name, each in contenders.items()}, rounds
    )
    kornia, pillow, _ = speeds.values()
    rows = []
    for name, figures in speeds.items():
        median = f"{sorted(figures)[len(figures) // 2]:.0f}"
        against = (*spread_text(ratios(figures, kornia), 2), *spread_text(ratios(figures, pillow), 2))
        rows.append([f"{size} pixels, batches of {count}: {name}", median, *against])
    return rows


def main() -> None:
    parser = arguments_parser(__doc__.splitlines()[0] if __doc__ else "", rounds=7)
    parser.add_argument("--device", default="cpu", help="where gymtrain and kornia work: cpu or cuda")
    options: argparse.Namespace = parser.parse_args()
    torch.set_num_threads(options.threads)
    # As the tensors of a model have done long before in a training: memory of their size is kept from now on.
    torch.zeros(6 * 2**20)
    device = torch.device(options.device)
    print(header("gymtrain", "torch", "kornia", "pillow", rounds=options.rounds, threads=options.threads))
    if device.type == "cuda":
        print(f"- device: {torch.cuda.get_device_name(device)}")
    for chain in CHAINS:
        rows = [
            row
            for size in SIZES
            for count in BATCHES
            for row in measured(chain, size, count, options.rounds, 0.05 if options.quick else 0.7, device)
        ]
        columns = [", ".join(chain), "images per s", "speed / kornia", "range", "speed / Pillow", "range"]
        print(f"\n{table(columns, rows)}")


if __name__ == "__main__":
    main()
