"""Augmentors that change colours, against kornia and Pillow."""

from __future__ import annotations

import kornia.enhance as reference
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from gymtrain.data.augmentors import (
    Augmentation,
    Augmentor,
    Grayscale,
    HistogramEqualisation,
    Invert,
    RandomBrightness,
    RandomColor,
    RandomContrast,
)
from gymtrain.errors import DataError

BLENDS = {
    RandomBrightness: ImageEnhance.Brightness,
    RandomColor: ImageEnhance.Color,
    RandomContrast: ImageEnhance.Contrast,
}


def images_of(shape, count=16):
    return (torch.rand(count, *shape, generator=torch.Generator().manual_seed(0)) * 255).round()


def pictures(images):
    return [Image.fromarray(image.astype(np.uint8)) for image in images.numpy()]


def pixels(pictures):
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).float()


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.7])
@pytest.mark.parametrize("kind", BLENDS)
def test_a_blend_agrees_with_pillow_to_a_level(kind, factor):
    images = images_of((20, 30, 3))
    blended = kind(min_factor=factor, max_factor=factor).augment(images, torch.zeros(16, 1))
    expected = pixels([BLENDS[kind](picture).enhance(factor) for picture in pictures(images)])
    # Pillow cuts fractions off, and rounds the grey and its mean.
    torch.testing.assert_close(blended, expected, atol=2.5, rtol=0)
    assert (blended - expected).abs().mean() < 1.2


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.7])
def test_blends_agree_with_kornia(factor):
    images = images_of((20, 30, 3)) / 255
    planes, draws = images.movedim(-1, 1), torch.zeros(16, 1)
    expected = {
        RandomBrightness: reference.adjust_brightness_accumulative(planes, factor),
        RandomContrast: reference.adjust_contrast_with_mean_subtraction(planes, factor),
        RandomColor: reference.adjust_saturation_with_gray_subtraction(planes, factor),
    }
    for kind, wanted in expected.items():
        augmentation = Augmentation([kind(1.0, factor, factor)], seed=0, pixel_range=(0.0, 1.0))
        found = augmentation(images, 1, torch.arange(16))
        torch.testing.assert_close(found, wanted.movedim(1, -1), atol=1e-3, rtol=0)
    assert draws.eq(0).all()


@pytest.mark.parametrize("kind", BLENDS)
def test_factors_are_uniform_between_the_least_and_the_greatest(kind):
    image = torch.tensor([[[60.0, 80, 100], [0, 0, 0]]]).repeat(4000, 1, 1, 1)
    changed = Augmentation([kind(1.0, 0.2, 0.8)], seed=0)(image, 1, torch.arange(4000))
    plain, strong = (kind(1.0, factor, factor).augment(image[:1], torch.zeros(1, 1))[0, 0, 0, 2] for factor in (0, 1))
    factors = (changed[:, 0, 0, 2] - plain) / (strong - plain)
    assert 0.199 < factors.min() < 0.21
    assert 0.79 < factors.max() < 0.801
    assert factors.mean() == pytest.approx(0.5, abs=0.02)
    assert factors.std() == pytest.approx(0.6 / 12**0.5, abs=0.01)


def test_invert_and_grayscale_agree_with_pillow():
    images, none = images_of((20, 30, 3)), torch.zeros(16, 0)
    inverted = pixels([ImageOps.invert(picture) for picture in pictures(images)])
    grey = pixels([ImageOps.grayscale(picture).convert("RGB") for picture in pictures(images)])
    assert torch.equal(Invert().augment(images, none), inverted)
    torch.testing.assert_close(Grayscale().augment(images, none), grey, atol=1, rtol=0)


@pytest.mark.parametrize("shape", [(64, 64), (50, 70, 1), (64, 64, 3)])
def test_histogram_equalisation_agrees_with_pillow(shape):
    images = (images_of(shape, count=4) ** 2 / 400 + 20).round()
    found = HistogramEqualisation().augment(images, torch.zeros(4, 0))
    planes = images if images.ndim == 4 else images[..., None]
    expected = torch.stack([
        pixels([ImageOps.equalize(picture) for picture in pictures(planes[..., channel])])
        for channel in range(planes.shape[3])
    ], dim=-1).view_as(images)  # fmt: skip
    # Pillow counts the pixels of a level in whole numbers, which brightens the image by up to a part of it.
    torch.testing.assert_close(found, expected, atol=255 * 256 / 4096, rtol=0)


def test_equalised_values_are_uniform_and_keep_their_order():
    dark = torch.arange(256.0).view(1, 16, 16) / 4
    bright = HistogramEqualisation().augment(dark, torch.zeros(1, 0)).flatten()
    assert (bright.diff() >= 0).all()
    assert bright.min() == 0
    assert bright.max() == 255
    assert bright.mean() == pytest.approx(127.5, abs=2)


def test_an_even_image_is_not_equalised():
    images = torch.stack([torch.full((8, 8), 17.25), torch.full((8, 8), 200.0)])
    assert torch.equal(HistogramEqualisation().augment(images, torch.zeros(2, 0)), images)


@pytest.mark.parametrize("pixel_range", [(0.0, 1.0), (-1.0, 1.0), (-2.5, 3.5), (7.0, 7.0)])
@pytest.mark.parametrize("kind", [*BLENDS, Grayscale, Invert, HistogramEqualisation])
def test_what_happens_does_not_depend_on_the_unit_of_the_pixels(kind, pixel_range):
    images, ids = images_of((12, 12, 3)), torch.arange(16)
    low, high = pixel_range
    scaled = low + images / 255 * (high - low)
    found = Augmentation([kind(1.0)], seed=0, pixel_range=pixel_range)(scaled, 1, ids)
    expected = low + Augmentation([kind(1.0)], seed=0)(images, 1, ids) / 255 * (high - low)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", [RandomColor, Grayscale])
@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (8, 8, 4)])
def test_grey_images_are_refused_where_colour_is_needed(kind, shape):
    with pytest.raises(
        DataError, match=rf"^{kind.__name__} needs images with three channels, \(height, width, 3\); got"
    ):
        kind().check(shape)


class Nothing(Augmentor):
    """Stands at a place in a chain."""

    probability = 0.0

    def augment(self, images, draws):
        return images


def colours():
    return st.lists(
        st.sampled_from([
            RandomBrightness(0.6), RandomBrightness(0.6, 0.1, 0.9), RandomContrast(0.6, 0.2, 0.7),
            RandomContrast(0.6, 1.0, 3.0), RandomColor(0.6, 0.2, 0.7), RandomColor(0.6), Grayscale(0.3), Invert(0.5),
            HistogramEqualisation(0.3),
        ]), min_size=2, max_size=7,
    )  # fmt: skip


@settings(max_examples=40, deadline=None, derandomize=True)
@given(chain=colours(), epoch=st.integers(1, 1000))
def test_colours_in_one_pass_are_those_of_one_pass_each(chain, epoch):
    images, ids = images_of((9, 11, 3)), torch.arange(16)
    found = Augmentation(chain, seed=0)(images, epoch, ids)
    expected = images
    for index, augmentor in enumerate(chain):
        expected = Augmentation([*[Nothing()] * index, augmentor], seed=0)(expected, epoch, ids)
    # A value on the border between two levels of a histogram may go to either.
    equalised = any(isinstance(augmentor, HistogramEqualisation) for augmentor in chain)
    assert (found - expected).abs().median() < 2e-3
    assert equalised or (found - expected).abs().max() < 0.02
