"""What all augmentors have in common, and the chain that they are in."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pydantic
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gymtrain.data.augmentors import (
    Augmentation,
    Augmentor,
    Flip,
    Grayscale,
    HistogramEqualisation,
    Invert,
    Mixing,
    RandomBrightness,
    RandomColor,
    RandomContrast,
    RandomCrop,
    Rotate,
    RotateRange,
    TrivialAugment,
    Zoom,
    ZoomRandom,
)
from gymtrain.errors import DataError
from gymtrain.registry import BUILTIN, find

ALL = [find("augmentor", name) for name in sorted(BUILTIN["augmentor"])]
ALONE = [kind for kind in ALL if not issubclass(kind, Mixing)]
COLOUR_ONLY = {RandomColor, Grayscale}
SHAPES = [(12, 12), (12, 12, 1), (12, 12, 3), (16, 15, 3), (16, 15, 4)]


def made(kind, **arguments):
    """Return an augmentor that takes small images of any shape."""
    usual = {Rotate: {"rotation": 180}, RandomCrop: {"padding": 2}}
    return kind(**usual.get(kind, {}), **arguments)


def images_of(shape, count=16):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0)) * 255


def takes(kind, shape):
    return kind not in COLOUR_ONLY or shape[-1] == 3


def test_every_augmentor_is_registered_and_exported():
    assert {name: kind.__name__.lower() for name, kind in zip(sorted(BUILTIN["augmentor"]), ALL, strict=True)} == {
        name: name.replace("_", "") for name in BUILTIN["augmentor"]
    }


def test_signatures_can_be_checked_without_torch():
    code = """
import inspect, sys
from gymtrain.registry import BUILTIN, find
for name in BUILTIN["augmentor"]:
    inspect.signature(find("augmentor", name), eval_str=True)
    find("augmentor", name)()
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("kind", ALL)
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
    for name in arguments.keys() - {"probability", "mex", "mey"}:
        with pytest.raises(pydantic.ValidationError, match=name):
            model(**{name: -2})


@pytest.mark.parametrize("kind", [RandomColor, RandomBrightness, RandomContrast, Zoom])
def test_a_range_that_is_the_wrong_way_round_is_refused(kind):
    with pytest.raises(ValueError, match=r"^min_factor must not be .* got min_factor=2.0, max_factor=1.5$"):
        kind(min_factor=2.0)


@pytest.mark.parametrize("kind", ALL)
def test_rows_that_are_no_images_are_refused_before_training(kind):
    message = rf"^dataset.data_augmentors\[1\]: {kind.__name__} works on images, .* got samples of shape \(64,\); leave"
    with pytest.raises(DataError, match=message):
        Augmentation([AddDraw(), kind()], seed=0).check((64,))


@pytest.mark.parametrize("kind", ALL)
def test_colour_images_suit_every_augmentor(kind):
    kind().check((12, 12, 3))


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
    chain = [AddDraw(probability=0.0), AddDraw()]
    drawn.append(Augmentation(chain, seed=0)(torch.zeros(50, 1, 1), 1, ids).flatten())
    assert len(torch.cat(drawn).unique()) == 50 * 7


def test_the_share_of_changed_samples_is_the_probability():
    changed = Augmentation([AddDraw(probability=0.3)], seed=0)(torch.zeros(10_000, 1, 1), 1, torch.arange(10_000))
    assert (changed != 0).float().mean() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("kind", ALONE)
def test_each_augmentor_changes_its_share_of_the_samples_and_keeps_the_bits_of_the_others(kind):
    # An image that no augmentor leaves alone, so that a changed one can be told.
    image = images_of((12, 12, 3), count=1) * 0.5
    images = image.repeat(2000, 1, 1, 1)
    for probability in (0.25, 0.7):
        augmented = Augmentation([made(kind, probability=probability)], seed=3)(images, 1, torch.arange(2000))
        share = (augmented != images).flatten(1).any(dim=1).float().mean()
        # One of the ways of TrivialAugment is no change, and a threshold may be brighter than the image.
        of_them = 12.5 / 14 if kind is TrivialAugment else 1.0
        assert share == pytest.approx(probability * of_them, abs=0.05)


@pytest.mark.parametrize(("kind", "shape"), [(kind, shape) for kind in ALONE for shape in SHAPES if takes(kind, shape)])
def test_probability_zero_keeps_every_bit_and_one_keeps_shape_type_and_range(kind, shape):
    images, ids = images_of(shape), torch.arange(16)
    assert torch.equal(Augmentation([made(kind, probability=0)], seed=0)(images, 1, ids), images)
    augmented = Augmentation([made(kind, probability=1)], seed=0)(images, 1, ids)
    assert (augmented != images).flatten(1).any(dim=1).float().mean() > 0.6
    assert augmented.shape == images.shape
    assert augmented.dtype == torch.float32
    assert augmented.is_contiguous()
    assert augmented.min() >= 0
    assert augmented.max() <= 255


DETERMINED = {Flip, Grayscale, Invert, HistogramEqualisation, Rotate}


@pytest.mark.parametrize("kind", [kind for kind in ALONE if kind not in DETERMINED])
def test_equal_images_are_changed_differently(kind):
    images = images_of((32, 32, 3), count=1).repeat(32, 1, 1, 1)
    arguments = {"randomise": True} if kind is ZoomRandom else {}
    augmented = Augmentation([kind(probability=1, **arguments)], seed=0)(images, 1, torch.arange(32))
    assert len(augmented.flatten(1).unique(dim=0)) > 24


CHAIN = [
    Flip(top_bottom_left_right="RANDOM"),
    RotateRange(max_left_rotation=45, max_right_rotation=20),
    RandomColor(probability=0.7),
    RandomBrightness(),
]
EVERYTHING = [made(kind, probability=0.3) for kind in ALONE]


@pytest.mark.parametrize("chain", [CHAIN, EVERYTHING], ids=["chain", "everything"])
@pytest.mark.parametrize("size", [(9, 9), (16, 15), (65, 64)])
@pytest.mark.parametrize("sizes", [[1] * 37, [8, 8, 8, 13], [36, 1]])
def test_the_result_is_the_same_bit_for_bit_in_any_batches_and_order(chain, size, sizes):
    images, augmentation = images_of((*size, 3), count=37), Augmentation(chain, seed=5)
    whole = augmentation(images, 3, torch.arange(37))
    shuffled = torch.randperm(37, generator=torch.Generator().manual_seed(1))
    parts = torch.cat([augmentation(images[ids], 3, ids) for ids in shuffled.split(sizes)])
    assert torch.equal(parts, whole[shuffled])


def chains():
    kinds = st.sampled_from(ALONE)
    one = st.builds(lambda kind, probability: made(kind, probability=probability), kinds, st.sampled_from([0.3, 0.8]))
    return st.lists(one, min_size=1, max_size=6)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(chain=chains(), epoch=st.integers(1, 10_000), seed=st.integers(0, 2**63), alone=st.integers(0, 6))
def test_a_sample_alone_becomes_what_it_becomes_among_others(chain, epoch, seed, alone):
    images, augmentation = images_of((13, 14, 3), count=7), Augmentation(chain, seed=seed)
    ids = torch.arange(7) * 1000 + 5
    together = augmentation(images, epoch, ids)
    rows = slice(alone, alone + 1)
    assert torch.equal(augmentation(images[rows], epoch, ids[rows])[0], together[alone])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(chain=chains(), epoch=st.integers(1, 10_000))
def test_who_is_changed_does_not_depend_on_the_neighbours_in_the_chain(chain, epoch):
    images, ids = images_of((13, 14, 3), count=24), torch.arange(24)
    chosen = torch.zeros(24, dtype=torch.bool)
    for index, augmentor in enumerate(chain):
        probability, augmentor.probability = augmentor.probability, 0.0
        rest = [AddDraw(probability=0.0)] * index + [AddDraw(probability)]
        chosen |= (Augmentation(rest, seed=1)(torch.zeros(24, 1, 1), epoch, ids) != 0).flatten()
        augmentor.probability = probability
    augmented = Augmentation(chain, seed=1)(images, epoch, ids)
    assert torch.equal(augmented[~chosen], images[~chosen])


def test_the_number_of_threads_does_not_reach_the_augmentation():
    images, augmentation = images_of((40, 40, 3), count=64), Augmentation(EVERYTHING, seed=5)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(augmentation(images, 1, torch.arange(64)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_the_precision_of_the_model_does_not_reach_the_augmentation():
    images, augmentation = images_of((32, 32, 3)), Augmentation(EVERYTHING, seed=5)
    expected = augmentation(images, 1, torch.arange(16))
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = augmentation(images, 1, torch.arange(16))
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", ALL)
def test_images_of_another_precision_keep_it(kind, dtype):
    images, ids = images_of((12, 12, 3)), torch.arange(16)
    augmentation = Augmentation([made(kind, probability=1)], seed=0)
    augmented = augmentation(images.to(dtype), 1, ids)
    mixed, _ = augmentation.mix(augmented, torch.eye(16), 1, ids)
    assert augmented.dtype == mixed.dtype == dtype
    assert (augmented.float() - augmentation(images, 1, ids)).abs().median() < 4


@pytest.mark.parametrize("shape", [(16, 15), (16, 15, 3)])
def test_the_batch_of_the_caller_is_not_changed(shape):
    images = images_of(shape)
    before = images.clone()
    chain = [augmentor for augmentor in EVERYTHING if takes(type(augmentor), shape)]
    Augmentation(chain, seed=0)(images, 1, torch.arange(16))
    assert torch.equal(images, before)


def test_an_empty_batch_stays_empty():
    augmented = Augmentation(EVERYTHING, seed=0)(torch.zeros(0, 16, 15, 3), 1, torch.zeros(0, dtype=torch.int64))
    assert augmented.shape == (0, 16, 15, 3)


def test_the_augmentors_of_the_caller_are_not_changed():
    augmentor = Invert(probability=1)
    augmentation = Augmentation([augmentor], seed=0, pixel_range=(-1.0, 1.0))
    assert augmentation(torch.full((1, 2, 2), 0.25), 1, torch.arange(1)).unique().tolist() == [-0.25]
    assert augmentor.pixel_range == (0.0, 255.0)


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
