from __future__ import annotations

import inspect
import json
import subprocess
import sys

import kornia.geometry.transform as reference
import pydantic
import pytest
import torch

from gymtrain.data.augmentors import Augmentation, Augmentor, Flip, RandomBrightness, RandomColor, Rotate
from gymtrain.errors import DataError

BUILT_IN = [Flip, Rotate, RandomColor, RandomBrightness]
SHAPES = [(8, 9), (8, 9, 1), (8, 9, 3), (1, 1, 3)]
shapes = pytest.mark.parametrize("shape", SHAPES)


def images_of(shape, count=16):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))


def to_planes(images):
    return images.movedim(-1, 1) if images.ndim == 4 else images[:, None]


def from_planes(planes, like):
    return planes.movedim(1, -1) if like.ndim == 4 else planes[:, 0]


def test_signatures_can_be_checked_without_torch():
    code = """
import inspect, sys
import gymtrain.data.augmentors as a
for name in ("Flip", "Rotate", "RandomColor", "RandomBrightness"):
    inspect.signature(getattr(a, name), eval_str=True)
    getattr(a, name)()
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("kind", BUILT_IN)
def test_a_pydantic_model_of_the_signature_knows_the_ranges(kind):
    arguments = {
        name: (parameter.annotation, parameter.default)
        for name, parameter in inspect.signature(kind, eval_str=True).parameters.items()
    }
    model = pydantic.create_model(kind.__name__, **arguments)
    kind(**json.loads(model().model_dump_json()))
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(pydantic.ValidationError, match="probability"):
            model(probability=wrong)
    for name in arguments.keys() - {"probability"}:
        with pytest.raises(pydantic.ValidationError, match=name):
            model(**{name: -1})


@shapes
@pytest.mark.parametrize(("direction", "expected"), [("horizontal", reference.hflip), ("vertical", reference.vflip)])
def test_flip_agrees_with_kornia(shape, direction, expected):
    images = images_of(shape)
    flipped = Flip(direction=direction).augment(images, torch.zeros(16, 1))
    assert torch.equal(flipped, from_planes(expected(to_planes(images)), images))


def test_a_random_flip_goes_either_way_by_its_draw():
    images = images_of((8, 9, 3), count=2)
    flipped = Flip(direction="random").augment(images, torch.tensor([[0.1], [0.9]]))
    assert torch.equal(flipped[0], images[0].flip(1))
    assert torch.equal(flipped[1], images[1].flip(0))


@shapes
def test_rotate_agrees_with_kornia(shape):
    images = images_of(shape)
    draws = torch.linspace(0, 1, 16)[:, None]
    turned = Rotate(max_left_degrees=180, max_right_degrees=90).augment(images, draws)
    expected = reference.rotate(to_planes(images), torch.linspace(-90, 180, 16))
    # One column or row has no width that kornia could scale by: nothing to compare there.
    if 1 not in shape[:2]:
        torch.testing.assert_close(turned, from_planes(expected, images), atol=2e-5, rtol=0)
    assert torch.isfinite(turned).all()


def test_rotate_to_the_left_is_counter_clockwise():
    image = torch.zeros(1, 3, 3)
    image[0, 1, 2] = 1  # on the right
    left = Rotate(max_left_degrees=90, max_right_degrees=0).augment(image, torch.ones(1, 1))
    right = Rotate(max_left_degrees=0, max_right_degrees=90).augment(image, torch.zeros(1, 1))
    assert left[0, 0, 1] == pytest.approx(1, abs=1e-5)
    assert right[0, 2, 1] == pytest.approx(1, abs=1e-5)


def test_rotate_by_no_degrees_keeps_the_image():
    images = images_of((8, 9, 3))
    turned = Rotate(max_left_degrees=0, max_right_degrees=0).augment(images, torch.rand(16, 1))
    torch.testing.assert_close(turned, images, atol=1e-5, rtol=0)


def test_random_color_blends_with_the_luma():
    images = images_of((8, 9, 3))
    grey = images @ torch.tensor([0.299, 0.587, 0.114])
    without, same, double = (
        RandomColor(min_factor=factor, max_factor=factor).augment(images, torch.zeros(16, 1)) for factor in (0, 1, 2)
    )
    torch.testing.assert_close(without, grey[..., None].expand_as(images))
    assert torch.equal(same, images)
    torch.testing.assert_close(double, 2 * images - grey[..., None])


def test_random_brightness_multiplies_by_a_factor_of_its_range():
    images = torch.ones(3, 4, 5)
    brighter = RandomBrightness(min_factor=0.5, max_factor=2.5).augment(images, torch.tensor([[0.0], [0.5], [0.75]]))
    assert brighter[:, 0, 0].tolist() == [0.5, 1.5, 2.0]


@pytest.mark.parametrize("kind", [RandomColor, RandomBrightness])
def test_a_range_that_is_the_wrong_way_round_is_refused(kind):
    with pytest.raises(ValueError, match=r"^min_factor must not be .* got min_factor=2.0, max_factor=1.5$"):
        kind(min_factor=2.0)


@pytest.mark.parametrize("kind", BUILT_IN)
def test_rows_that_are_no_images_are_refused_before_training(kind):
    message = rf"^dataset.data_augmentors\[1\]: {kind.__name__} works on images, .* got samples of shape \(64,\); leave"
    with pytest.raises(DataError, match=message):
        Augmentation([AddDraw(), kind()], seed=0).check((64,))


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (8, 8, 4)])
def test_grey_images_are_refused_where_colour_is_needed(shape):
    with pytest.raises(DataError, match=r"^RandomColor needs images with three channels, \(height, width, 3\); got"):
        RandomColor().check(shape)


@pytest.mark.parametrize("kind", BUILT_IN)
def test_colour_images_suit_every_augmentor(kind):
    kind().check((8, 8, 3))


class AddDraw(Augmentor):
    """Writes its draw into the image, so that a test can read it back."""

    num_draws = 1

    def __init__(self, probability=1.0):
        self.probability = probability

    def check(self, shape):
        pass

    def augment(self, images, draws):
        return images + draws[:, 0].view(-1, 1, 1)


def test_every_sample_epoch_seed_and_place_draws_its_own_number():
    ids = torch.arange(50)
    drawn = [
        Augmentation([AddDraw()], seed)(torch.zeros(50, 1, 1), epoch, ids).flatten()
        for seed in (0, 1)
        for epoch in (1, 2, 3)
    ]
    first, second = AddDraw(), AddDraw()
    second.probability = 0.0
    drawn.append(Augmentation([second, first], seed=0)(torch.zeros(50, 1, 1), 1, ids).flatten())
    assert len(torch.cat(drawn).unique()) == 50 * 7


def test_the_share_of_changed_samples_is_the_probability():
    changed = Augmentation([AddDraw(probability=0.3)], seed=0)(torch.zeros(10_000, 1, 1), 1, torch.arange(10_000))
    assert (changed != 0).float().mean() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [(kind, shape) for kind in BUILT_IN for shape in SHAPES if kind is not RandomColor or shape[-1] == 3],
)
def test_probability_zero_keeps_every_bit_and_one_changes_all(kind, shape):
    images, ids = images_of(shape), torch.arange(16)
    assert torch.equal(Augmentation([kind(probability=0)], seed=0)(images, 1, ids), images)
    if shape[0] > 1:
        augmented = Augmentation([kind(probability=1)], seed=0)(images, 1, ids)
        assert (augmented != images).flatten(1).any(dim=1).all()
        assert augmented.shape == images.shape
        assert augmented.dtype == torch.float32
        assert augmented.is_contiguous()


@pytest.mark.parametrize("kind", BUILT_IN)
def test_samples_that_are_not_chosen_keep_their_bits(kind):
    images = images_of((8, 9, 3), count=64)
    augmented = Augmentation([kind(probability=0.5)], seed=0)(images, 1, torch.arange(64))
    kept = (augmented == images).flatten(1).all(dim=1)
    assert 16 < kept.sum() < 48


@pytest.mark.parametrize("kind", [Rotate, RandomColor, RandomBrightness])
def test_equal_images_are_changed_differently(kind):
    images = images_of((8, 9, 3), count=1).repeat(32, 1, 1, 1)
    augmented = Augmentation([kind(probability=1)], seed=0)(images, 1, torch.arange(32))
    assert len(augmented.flatten(1).unique(dim=0)) == 32


CHAIN = [
    Flip(direction="random"),
    Rotate(max_left_degrees=45, max_right_degrees=20),
    RandomColor(probability=0.7),
    RandomBrightness(),
]


@pytest.mark.parametrize("size", [(9, 7), (32, 32), (65, 64)])
@pytest.mark.parametrize("sizes", [[1] * 37, [5, 32], [8, 8, 8, 13], [36, 1]])
def test_the_result_is_the_same_bit_for_bit_in_any_batches_and_order(size, sizes):
    images, augmentation = images_of((*size, 3), count=37), Augmentation(CHAIN, seed=5)
    whole = augmentation(images, 3, torch.arange(37))
    shuffled = torch.randperm(37, generator=torch.Generator().manual_seed(1))
    parts = torch.cat([augmentation(images[ids], 3, ids) for ids in shuffled.split(sizes)])
    assert torch.equal(parts, whole[shuffled])


def test_the_precision_of_the_model_does_not_reach_the_augmentation():
    images, augmentation = images_of((32, 32, 3)), Augmentation(CHAIN, seed=5)
    expected = augmentation(images, 1, torch.arange(16))
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = augmentation(images, 1, torch.arange(16))
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(found, expected)


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 3)])
def test_the_batch_of_the_caller_is_not_changed(shape):
    images = images_of(shape)
    before = images.clone()
    chain = [augmentor for augmentor in CHAIN if len(shape) == 3 or not isinstance(augmentor, RandomColor)]
    Augmentation(chain, seed=0)(images, 1, torch.arange(16)).zero_()
    assert torch.equal(images, before)


def test_an_empty_batch_stays_empty():
    augmented = Augmentation(CHAIN, seed=0)(torch.zeros(0, 8, 9, 3), 1, torch.zeros(0, dtype=torch.int64))
    assert augmented.shape == (0, 8, 9, 3)


@pytest.mark.parametrize(
    ("result", "found"),
    [
        (torch.zeros(2, 4, 4, 1), r"torch.float32 of shape \(2, 4, 4, 1\)"),
        (torch.zeros(2, 4, 4, 3).double(), "float64"),
    ],
)
def test_an_augmentor_that_changes_shape_or_dtype_is_named(result, found):
    class Careless(Augmentor):
        def augment(self, images, draws):
            return result

    with pytest.raises(DataError, match=rf"^Careless.augment got torch.float32 .* and returned .*{found}.*keep both$"):
        Augmentation([Careless()], seed=0)(torch.zeros(2, 4, 4, 3), 1, torch.arange(2))
