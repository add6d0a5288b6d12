"""A chain of five augmentors against kornia, one augmentor at a time, and Pillow, one image at a time.

All do the same five: a turn, a shear, a zoom, brightness and colour, each for half of the samples, and each time by a
new amount. kornia is fed float32 batches of shape (rows, channels, height, width) from 0 to 1, which suits it best, and
Pillow images of 8 bits, which are not converted from and to arrays.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable
from functools import partial
from time import perf_counter

import torch
from _measure import arguments_parser, header, interleaved, ratios, spread_text, table
from PIL import Image, ImageEnhance

from gymtrain.data.augmentors import Augmentation, RandomBrightness, RandomColor, RotateRange, Shear, Zoom

SIZES, BATCHES = (32, 100), (64, 256)
DEGREES, ZOOM, FACTORS = 15.0, (1.0, 1.3), (0.6, 1.4)


def of_gymtrain(images: torch.Tensor) -> Callable[[], object]:
    """Return what augments the batch, as a training does it, in epoch after epoch."""
    chain = [
        RotateRange(0.5, max_left_rotation=DEGREES, max_right_rotation=DEGREES),
        Shear(0.5, max_shear_left=DEGREES, max_shear_right=DEGREES),
        Zoom(0.5, *ZOOM),
        RandomBrightness(0.5, *FACTORS),
        RandomColor(0.5, *FACTORS),
    ]
    augmentation, ids = Augmentation(chain, seed=0), torch.arange(len(images), device=images.device)
    epoch = iter(range(1, 10**9))
    return lambda: augmentation(images, next(epoch), ids)


def of_kornia(images: torch.Tensor) -> Callable[[], object]:
    """Return the same in kornia, one augmentor after the other."""
    from kornia import augmentation as kornia

    chain = torch.nn.Sequential(
        kornia.RandomRotation(DEGREES, p=0.5),
        kornia.RandomShear(DEGREES, p=0.5),
        kornia.RandomAffine(0.0, scale=ZOOM, p=0.5),
        kornia.RandomBrightness(FACTORS, p=0.5),
        kornia.RandomSaturation(FACTORS, p=0.5),
    )
    planes = (images / 255).movedim(-1, 1).contiguous()

    @torch.no_grad()
    def augment() -> object:
        return chain(planes)

    return augment


def of_pillow(images: torch.Tensor) -> Callable[[], object]:
    """Return the same with Pillow, image by image, without a conversion from and to arrays."""
    pictures = [Image.fromarray(image) for image in images.to(torch.uint8).cpu().numpy()]
    draw = random.Random(0)

    def augmented(picture: Image.Image) -> Image.Image:
        width, height = picture.size
        if draw.random() < 0.5:
            picture = picture.rotate(draw.uniform(-DEGREES, DEGREES), Image.Resampling.BILINEAR)
        if draw.random() < 0.5:
            slope = math.tan(math.radians(draw.uniform(-DEGREES, DEGREES)))
            matrix = (1, slope, -slope * height / 2, 0, 1, 0)
            picture = picture.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        if draw.random() < 0.5:
            share = 1 / draw.uniform(*ZOOM)
            left, top = width * (1 - share) / 2, height * (1 - share) / 2
            box = (left, top, width - left, height - top)
            picture = picture.resize((width, height), Image.Resampling.BILINEAR, box)
        if draw.random() < 0.5:
            picture = ImageEnhance.Brightness(picture).enhance(draw.uniform(*FACTORS))
        if draw.random() < 0.5:
            picture = ImageEnhance.Color(picture).enhance(draw.uniform(*FACTORS))
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


def measured(size: int, count: int, rounds: int, seconds: float, device: torch.device) -> list[list[str]]:
    """Return the rows of the table for a size of images and of batches."""
    images = (torch.rand(count, size, size, 3, generator=torch.Generator().manual_seed(0)) * 255).round().to(device)
    contenders = {
        "kornia, one augmentor at a time": of_kornia(images),
        "Pillow, one image at a time": of_pillow(images),
        "gymtrain": of_gymtrain(images),
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
    parser = arguments_parser(__doc__.splitlines()[0] if __doc__ else "", rounds=9)
    parser.add_argument("--device", default="cpu", help="where gymtrain and kornia work: cpu or cuda")
    options: argparse.Namespace = parser.parse_args()
    torch.set_num_threads(options.threads)
    # As the tensors of a model have done long before in a training: memory of their size is kept from now on.
    torch.zeros(6 * 2**20)
    device = torch.device(options.device)
    print(header("gymtrain", "torch", "kornia", "pillow", rounds=options.rounds, threads=options.threads))
    if device.type == "cuda":
        print(f"- device: {torch.cuda.get_device_name(device)}")
    rows = [
        row
        for size in SIZES
        for count in BATCHES
        for row in measured(size, count, options.rounds, 0.05 if options.quick else 1.0, device)
    ]
    print()
    print(table(["five augmentors", "images per s", "speed / kornia", "range", "speed / Pillow", "range"], rows))


if __name__ == "__main__":
    main()
