"""Augmentors that cover a part of the image."""

from __future__ import annotations

import pytest
import torch

from gymtrain.data.augmentors import Augmentation, RandomErasing
from gymtrain.data.augmentors.erasing import rectangles


@pytest.mark.parametrize("shape", [(20, 40), (20, 40, 3)])
def test_a_rectangle_of_noise_covers_a_part_of_the_size_asked_for(shape):
    images, count = torch.full((2000, *shape), -7.0), 2000
    erased = Augmentation([RandomErasing(1.0, rectangle_area=0.5)], seed=0)(images, 1, torch.arange(count))
    is_covered = (erased != -7).view(count, 20, 40, -1)
    assert (is_covered.all(dim=3) == is_covered.any(dim=3)).all()
    rows, columns = is_covered.any(dim=3).any(dim=2), is_covered.any(dim=3).any(dim=1)
    assert (is_covered[..., 0] == rows[:, :, None] & columns[:, None, :]).all()
    for lines, size in ((rows, 20), (columns, 40)):
        sides = lines.sum(dim=1)
        assert sides.min() == size // 10
        assert sides.max() == size // 2
        assert sides.float().mean() == pytest.approx(size * 0.3, rel=0.05)
        # The rectangle is in one piece, and touches both edges now and then.
        assert (lines.int().diff(dim=1).abs().sum(dim=1) <= 2).all()
        assert lines[:, 0].any()
        assert lines[:, -1].any()
    noise = erased[is_covered.view_as(erased)]
    assert noise.min() >= 0
    assert noise.max() <= 255
    assert noise.mean() == pytest.approx(127.5, abs=2)
    assert noise.std() == pytest.approx(255 / 12**0.5, abs=2)


def test_each_image_has_noise_of_its_own():
    images = torch.zeros(50, 10, 10, 3)
    erasing = RandomErasing(rectangle_area=1.0)
    draws = torch.rand(50, 5, generator=torch.Generator().manual_seed(0))
    draws[:, :4] = 0.999
    erased = erasing.augment(images, draws)
    assert len(erased.flatten(1).unique(dim=0)) == 50


def test_places_of_rectangles_are_uniform():
    draws = torch.rand(6000, 2, generator=torch.Generator().manual_seed(0))
    found = rectangles(torch.zeros(6000, 1, 10), torch.tensor([[0.3, 1.0]]).expand(6000, 2), draws)
    first = found[:, 0].int().argmax(dim=1).bincount()
    assert len(first) == 8
    assert first.min() > 6000 / 8 * 0.85
