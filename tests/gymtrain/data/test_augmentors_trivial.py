"""TrivialAugment, way by way, against Pillow."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from gymtrain.data.augmentors import Augmentation, TrivialAugment

WAYS = 14


def image():
    coarse = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 200 + 30
    return torch.nn.functional.interpolate(coarse, (40, 40), mode="bilinear").movedim(1, -1).round()


def moved(x_from_x, x_from_y, x, y_from_x, y_from_y, y):
    """Return a move about the middle of the image."""
    middle = 20

    def move(picture):
        shift_x = middle - x_from_x * middle - x_from_y * middle + x
        shift_y = middle - y_from_x * middle - y_from_y * middle + y
        data = (x_from_x, x_from_y, shift_x, y_from_x, y_from_y, shift_y)
        return picture.transform(picture.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)

    return move


def turned(degrees):
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return moved(cosine, -sine, 0, sine, cosine, 0)


@pytest.mark.parametrize(
    ("way", "strength", "expected"),
    [
        (0, 0.9, lambda picture: picture),
        (1, 0.75, moved(1, 0.495, 0, 0, 1, 0)),
        (2, 0.75, moved(1, 0, 0, 0.495, 1, 0)),
        (3, 0.75, moved(1, 0, 10, 0, 1, 0)),
        (4, 0.25, moved(1, 0, 0, 0, 1, -10)),
        (5, 0.75, turned(67.5)),
        (6, 0.75, lambda picture: ImageEnhance.Brightness(picture).enhance(1.495)),
        (7, 0.25, lambda picture: ImageEnhance.Color(picture).enhance(0.505)),
        (8, 0.75, lambda picture: ImageEnhance.Contrast(picture).enhance(1.495)),
        (9, 0.75, lambda picture: ImageEnhance.Sharpness(picture).enhance(1.495)),
        (9, 0.0, lambda picture: ImageEnhance.Sharpness(picture).enhance(0.01)),
        (10, 0.999, lambda picture: ImageOps.posterize(picture, 2)),
        (10, 0.5, lambda picture: ImageOps.posterize(picture, 5)),
        (11, 0.6, lambda picture: ImageOps.solarize(picture, 102)),
        (12, 0.5, ImageOps.autocontrast),
        (13, 0.5, ImageOps.equalize),
    ],
)
def test_each_way_is_the_one_of_pillow(way, strength, expected):
    found = TrivialAugment().augment(image(), torch.tensor([[(way + 0.5) / WAYS, strength]]))[0].numpy()
    wanted = np.asarray(expected(Image.fromarray(image()[0].numpy().astype(np.uint8)))).astype(float)
    difference = np.abs(found - wanted)
    # Pillow counts levels in whole numbers when it equalises, and cuts fractions off everywhere.
    assert np.quantile(difference, 0.98) < (50 if way == 13 else 3)
    assert difference.mean() < (30 if way == 13 else 1.5)


def test_each_way_is_equally_frequent_and_each_sample_has_a_strength_of_its_own():
    images = image().repeat(1400, 1, 1, 1)
    augmented = Augmentation([TrivialAugment()], seed=0)(images, 1, torch.arange(1400))
    kinds, counts = augmented.flatten(1).unique(dim=0, return_counts=True)
    # Nothing, a stretch and an equalisation are always the same; thresholds above all pixels are nothing too.
    assert counts.sort(descending=True).values[:3].tolist() == pytest.approx([130, 100, 100], abs=35)
    assert len(kinds) > 900


def test_the_range_of_the_pixels_is_that_of_the_images():
    images = image().repeat(300, 1, 1, 1)
    found = Augmentation([TrivialAugment()], seed=0, pixel_range=(-1.0, 1.0))(images / 127.5 - 1, 1, torch.arange(300))
    expected = Augmentation([TrivialAugment()], seed=0)(images, 1, torch.arange(300)) / 127.5 - 1
    # A value on the border of two levels may go to either.
    assert ((found - expected).abs() < 1e-3).float().mean() > 0.97
    assert found.abs().max() <= 1
