"""Augmentors that move pixels, against kornia, Pillow and a card whose parts can be told apart."""

from __future__ import annotations

import math

import kornia.geometry.transform as reference
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gymtrain.data.augmentors import (
    Augmentation,
    Distort,
    Flip,
    GaussianDistortion,
    RandomCrop,
    Rotate,
    RotateRange,
    Shear,
    Skew,
    Zoom,
    ZoomRandom,
)
from gymtrain.errors import DataError

SHAPES = [(12, 12), (13, 17, 1), (17, 13, 3)]
shapes = pytest.mark.parametrize("shape", SHAPES)


def card(height, width):
    """A smooth image whose value tells where a pixel came from: columns in one channel, rows in the other."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y], dim=-1)[None]


def images_of(shape, count=16):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0)) * 255


def to_planes(images):
    return images.movedim(-1, 1) if images.ndim == 4 else images[:, None]


def from_planes(planes, like):
    return planes.movedim(1, -1) if like.ndim == 4 else planes[:, 0]


@shapes
@pytest.mark.parametrize(("direction", "expected"), [("LEFT_RIGHT", reference.hflip), ("TOP_BOTTOM", reference.vflip)])
def test_flip_agrees_with_kornia(shape, direction, expected):
    images = images_of(shape)
    flipped = Flip(top_bottom_left_right=direction).augment(images, torch.zeros(16, 1))
    assert torch.equal(flipped, from_planes(expected(to_planes(images)), images))


def test_a_random_flip_goes_either_way_by_its_draw():
    images = images_of((8, 9, 3), count=2)
    flipped = Flip(top_bottom_left_right="RANDOM").augment(images, torch.tensor([[0.1], [0.9]]))
    assert torch.equal(flipped[0], images[0].flip(1))
    assert torch.equal(flipped[1], images[1].flip(0))


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotate_agrees_with_pillow(rotation):
    images = images_of((9, 9, 3), count=1).round()
    turned = Rotate(rotation=rotation).augment(images, torch.zeros(1, 1))
    expected = Image.fromarray(images[0].numpy().astype(np.uint8)).rotate(rotation, expand=True)
    assert np.array_equal(turned[0].numpy(), np.asarray(expected))


def test_a_random_rotation_is_each_of_the_three_equally_often():
    images = torch.tensor([[0.0, 1], [3, 2]]).repeat(3000, 1, 1)
    turned = Augmentation([Rotate(probability=1)], seed=0)(images, 1, torch.arange(3000))
    shares = [(turned[:, 0, 0] == corner).float().mean() for corner in (0, 1, 2, 3)]
    assert shares == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3], abs=0.03)


def test_images_that_are_not_square_are_not_turned_by_90_degrees():
    with pytest.raises(DataError, match=r"^Rotate needs square images, .* got samples of shape \(8, 9, 3\); use rotat"):
        Rotate().check((8, 9, 3))
    Rotate(rotation=180).check((8, 9, 3))


@shapes
def test_rotate_range_agrees_with_kornia(shape):
    images, angles = images_of(shape), torch.linspace(-90, 180, 16)
    turned = RotateRange(max_left_rotation=180, max_right_rotation=90).augment(
        images, torch.linspace(0, 1, 16)[:, None]
    )
    height, width = shape[:2]
    radians = torch.deg2rad(angles)
    enlarged = radians.cos().abs() + radians.sin().abs() * max(height / width, width / height)
    center = torch.tensor([(width - 1) / 2, (height - 1) / 2]).expand(16, 2)
    matrices = reference.get_rotation_matrix2d(center, angles, enlarged[:, None].expand(16, 2))
    # kornia takes the middle of the outer pixels for the edges: nothing but the inside is the same.
    expected = reference.warp_affine(to_planes(images), matrices, (height, width), padding_mode="border")
    torch.testing.assert_close(turned, from_planes(expected, images), atol=0.05, rtol=0)


def test_rotate_range_to_the_left_is_counter_clockwise():
    image = torch.zeros(1, 3, 3)
    image[0, 1, 2] = 1  # on the right
    left = RotateRange(max_left_rotation=90, max_right_rotation=0).augment(image, torch.ones(1, 1))
    right = RotateRange(max_left_rotation=0, max_right_rotation=90).augment(image, torch.zeros(1, 1))
    assert left[0, 0, 1] == pytest.approx(1, abs=1e-5)
    assert right[0, 2, 1] == pytest.approx(1, abs=1e-5)


INSIDE = [RotateRange(max_left_rotation=180), Shear(), Skew(magnitude=0.5), Zoom(), ZoomRandom(randomise=True)]


@pytest.mark.parametrize("augmentor", INSIDE, ids=lambda augmentor: type(augmentor).__name__)
@pytest.mark.parametrize("size", [(20, 20), (12, 30), (30, 17)])
def test_no_corner_is_empty_and_what_is_shown_is_as_large_as_it_can_be(augmentor, size):
    draws = torch.rand(200, augmentor.num_draws, generator=torch.Generator().manual_seed(0))
    assert augmentor.augment(torch.ones(200, *size), draws).min() == pytest.approx(1)
    height, width = size
    corners = torch.tensor(
        [[-width / 2, width / 2, -width / 2, width / 2], [-height / 2, -height / 2, height / 2, height / 2]]
    )
    points = augmentor.matrix(draws, height, width) @ torch.cat([corners, torch.ones(1, 4)])
    points = (points[:, :2] / points[:, 2:]).abs() / torch.tensor([[width / 2], [height / 2]])
    assert points.max() < 1.0001
    if not isinstance(augmentor, Zoom | ZoomRandom):
        # A corner of what is shown touches an edge of the image.
        assert torch.allclose(points.flatten(1).amax(1), torch.ones(200), atol=1e-4)


@shapes
def test_zoom_agrees_with_kornia(shape):
    images, factors = images_of(shape), torch.linspace(1, 2, 16)
    zoomed = Zoom(min_factor=1, max_factor=2).augment(images, torch.linspace(0, 1, 16)[:, None])
    expected = reference.scale(to_planes(images), factors[:, None].expand(16, 2), padding_mode="border")
    torch.testing.assert_close(zoomed, from_planes(expected, images), atol=0.05, rtol=0)


def test_an_image_that_shrinks_is_surrounded_by_black():
    images = torch.full((1, 8, 8, 3), 3.0)
    augmentation = Augmentation([Zoom(1.0, min_factor=0.5, max_factor=0.5)], seed=0, pixel_range=(-1.0, 3.0))
    zoomed = augmentation(images, 1, torch.arange(1))
    assert (zoomed[:, 2:6, 2:6] == 3).all()
    assert (zoomed == 3).sum() == 4 * 4 * 3
    assert (zoomed == -1).sum() == (8 * 8 - 4 * 4) * 3


def test_zoom_random_shows_a_part_of_the_size_asked_for_anywhere():
    found = ZoomRandom(percentage_area=0.25).augment(card(40, 80).repeat(500, 1, 1, 1), torch.rand(500, 3))
    left, top, right, bottom = found[:, 0, 0, 0], found[:, 0, 0, 1], found[:, -1, -1, 0], found[:, -1, -1, 1]
    assert (right - left).mean() == pytest.approx(20, abs=0.5)
    assert (bottom - top).mean() == pytest.approx(10, abs=0.5)
    assert left.min() < 2
    assert right.max() > 78
    assert ((left + right) / 2).mean() == pytest.approx(40, abs=3)


def test_shear_leans_by_the_angles_asked_for_along_either_axis():
    images = card(20, 20).repeat(2, 1, 1, 1)
    # The largest angle to the right: along x, then along y.
    sheared = Shear(max_shear_left=0, max_shear_right=20).augment(images, torch.tensor([[1.0, 0.0], [1.0, 0.9]]))
    slope = math.tan(math.radians(20))
    columns, rows = sheared[0, 2:-2, 2:-2, 0], sheared[1, 2:-2, 2:-2, 1]
    assert (columns[1:] - columns[:-1]).mean() == pytest.approx(slope, abs=1e-3)
    assert (columns[:, 1:] - columns[:, :-1]).mean() == pytest.approx(1 - slope, abs=1e-3)
    assert (rows[:, 1:] - rows[:, :-1]).mean() == pytest.approx(slope, abs=1e-3)


def test_a_shear_that_leaves_nothing_is_refused():
    with pytest.raises(DataError, match=r"^Shear leaves nothing of samples of shape \(10, 20, 3\) from .* of 26.6 deg"):
        Shear(max_shear_left=30).check((10, 20, 3))
    Shear(max_shear_left=26).check((10, 20, 3))


# The corners of the card, seen through each tilt: which sides of the result are the sides of the image.
@pytest.mark.parametrize(
    ("draw", "axis", "narrow"), [(0.1, 1, "left"), (0.3, 1, "right"), (0.6, 0, "top"), (0.9, 0, "bottom")]
)
def test_a_tilt_cuts_one_side_down(draw, axis, narrow):
    tilted = Skew(skew_type="TILT", magnitude=0.5).augment(card(40, 40), torch.tensor([[1.0, draw]]))[0]
    extent = {
        "left": tilted[-1, 0, 1] - tilted[0, 0, 1],
        "right": tilted[-1, -1, 1] - tilted[0, -1, 1],
        "top": tilted[0, -1, 0] - tilted[0, 0, 0],
        "bottom": tilted[-1, -1, 0] - tilted[-1, 0, 0],
    }
    # A corner that is pulled out by half the side, twice: half of the side is left in the frame.
    assert extent[narrow] == pytest.approx(20, abs=1.5)
    opposite = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}[narrow]
    assert extent[opposite] == pytest.approx(39, abs=1.5)


@pytest.mark.parametrize("size", [(20, 20), (14, 25)])
def test_a_skew_agrees_with_kornia(size):
    height, width = size
    images, draws = images_of((*size, 3), count=40), torch.rand(40, 2, generator=torch.Generator().manual_seed(0))
    skew = Skew(skew_type="RANDOM", magnitude=0.4)
    matrices = skew.matrix(draws, height, width)
    to_corner = torch.tensor([[1.0, 0, width / 2 - 0.5], [0, 1, height / 2 - 0.5], [0, 0, 1]])
    backwards = to_corner @ matrices @ to_corner.inverse()
    expected = reference.warp_perspective(
        images.movedim(-1, 1), backwards.inverse(), (height, width), padding_mode="border"
    )
    torch.testing.assert_close(skew.augment(images, draws), expected.movedim(1, -1), atol=0.1, rtol=0)


def test_each_direction_of_a_skew_is_equally_frequent():
    draws = torch.rand(8000, 2, generator=torch.Generator().manual_seed(0))
    draws[:, 0] = 1.0
    for skew_type, count in (("TILT", 4), ("TILT_LEFT_RIGHT", 2), ("TILT_TOP_BOTTOM", 2), ("CORNER", 8)):
        matrices = Skew(skew_type=skew_type).matrix(draws, 8, 8)
        shares = (matrices / matrices[:, 2:, 2:]).flatten(1).round(decimals=3).unique(dim=0, return_counts=True)[1]
        assert len(shares) == count
        assert shares.min() > 8000 / count * 0.85


def test_random_crop_is_a_crop_of_the_padded_image():
    images, padding = images_of((9, 7, 3), count=200), 3
    cropped = Augmentation([RandomCrop(padding=padding)], seed=0, pixel_range=(-5.0, 255.0))(
        images, 1, torch.arange(200)
    )
    padded = torch.nn.functional.pad(images, (0, 0, padding, padding, padding, padding), value=-5.0)
    seen = set()
    for sample, found in zip(padded, cropped, strict=True):
        (place,) = [
            (top, left)
            for top in range(2 * padding + 1)
            for left in range(2 * padding + 1)
            if torch.equal(sample[top : top + 9, left : left + 7], found)
        ]
        seen.add(place)
    assert len(seen) > 40


def test_a_crop_of_which_nothing_may_be_left_is_refused():
    with pytest.raises(DataError, match=r"^RandomCrop shifts by up to padding=8 pixels; got samples of shape \(8, 9\)"):
        RandomCrop(padding=8).check((8, 9))


EXACT = [Flip(0.5, "RANDOM"), Rotate(0.5), Flip(0.5, "TOP_BOTTOM"), RandomCrop(0.5, padding=2)]


def test_a_chain_of_flips_turns_and_shifts_interpolates_nothing():
    images = images_of((9, 9, 3), count=200)
    augmented = Augmentation(EXACT[:3], seed=0)(images, 1, torch.arange(200))
    assert torch.equal(augmented.flatten(1).sort().values, images.flatten(1).sort().values)
    assert not torch.equal(augmented, images)


def test_samples_that_only_flip_in_a_chain_of_warps_are_not_interpolated():
    images, ids = images_of((9, 9, 3), count=300), torch.arange(300)
    flipped = Augmentation([Flip(0.5)], seed=0)(images, 1, ids)
    zoomed = Augmentation([Flip(0.5), Zoom(0.5, min_factor=1.2)], seed=0)(images, 1, ids)
    same = (zoomed == flipped).flatten(1).all(dim=1)
    assert 0.4 < same.float().mean() < 0.6


def test_the_matrices_of_exact_warps_are_what_they_do():
    images, draws = images_of((11, 11, 3), count=32), torch.rand(32, 2, generator=torch.Generator().manual_seed(0))
    for augmentor in EXACT:
        # Resampled, because a zoom by 1 is a warp too.
        chain = Augmentation([type(augmentor)(**(vars(augmentor) | {"probability": 1.0})), Zoom(1.0, 1, 1)], seed=0)
        alone = Augmentation([type(augmentor)(**(vars(augmentor) | {"probability": 1.0}))], seed=0)
        ids = (draws[:, 0] * 1000).long()
        torch.testing.assert_close(chain(images, 1, ids), alone(images, 1, ids), atol=0.01, rtol=0)


def smooth_images(count, height, width):
    """Images without black that interpolation changes little: one resampling is nearly the same as several."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 4, 4, generator=generator) * 255
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    return fine.movedim(1, -1).clamp(20, 255).contiguous()


def one_by_one(chain, images, epoch, ids, seed=0):
    """Apply each augmentor of a chain at its place in the chain, but alone."""
    for index in range(len(chain)):
        alone = [*[Flip(0.0)] * index, chain[index]]
        images = Augmentation(alone, seed=seed)(images, epoch, ids)
    return images


def warps():
    kinds = [
        Flip(0.5, "RANDOM"),
        Rotate(0.5),
        RotateRange(0.5),
        Shear(0.5),
        Skew(0.5, magnitude=0.2),
        Distort(0.5, 3, 3, 3),
    ]
    usual = st.sampled_from([*kinds, Zoom(0.5, 0.7, 1.3), ZoomRandom(0.5), RandomCrop(0.5)])
    return st.lists(usual, min_size=2, max_size=4)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(chain=warps(), epoch=st.integers(1, 1000))
def test_a_composed_chain_is_its_sequence_within_what_interpolation_loses(chain, epoch):
    images, ids = smooth_images(12, 48, 48), torch.arange(12)
    composed = Augmentation(chain, seed=0)(images, epoch, ids)
    sequence = one_by_one(chain, images, epoch, ids)
    # At the edge of what came from outside a pixel is black or not, by rounding.
    is_black = ((composed == 0) | (sequence < 19)).all(dim=3).float()[:, None]
    is_seen = torch.nn.functional.max_pool2d(is_black, 5, stride=1, padding=2)[:, 0] == 0
    difference = (composed - sequence).abs()[is_seen]
    assert is_seen.float().mean() > 0.2
    assert difference.mean() < 1
    assert (difference > 10).float().mean() < 0.01


def test_what_a_warp_has_cut_off_does_not_come_back():
    images = torch.full((1, 16, 16), 200.0)
    chain = [Zoom(1.0, 2, 2), Zoom(1.0, 0.5, 0.5)]
    shrunk = Augmentation(chain, seed=0)(images, 1, torch.arange(1))
    assert (shrunk[:, 4:12, 4:12] == 200).all()
    assert (shrunk == 0).sum() == 16 * 16 - 8 * 8


def mesh(moves, height, width):
    """Return what Pillow's mesh takes: each tile of the result and the corners in the image that it shows."""
    moves = np.pad(moves, ((0, 0), (1, 1), (1, 1)))
    rows, columns = moves.shape[1] - 1, moves.shape[2] - 1
    x, y = np.meshgrid(np.arange(columns + 1) * width / columns, np.arange(rows + 1) * height / rows)
    sources = np.stack([x, y]) + moves
    for row in range(rows):
        for column in range(columns):
            box = (x[row, column], y[row, column], x[row + 1, column + 1], y[row + 1, column + 1])
            corners = [(row, column), (row + 1, column), (row + 1, column + 1), (row, column + 1)]
            yield tuple(map(int, box)), [float(sources[axis, r, c]) for r, c in corners for axis in (0, 1)]


@pytest.mark.parametrize(
    "augmentor",
    [Distort(grid_width=5, grid_height=4, magnitude=3), GaussianDistortion(grid_width=5, grid_height=4, magnitude=3)],
    ids=lambda augmentor: type(augmentor).__name__,
)
def test_a_distortion_agrees_with_a_mesh_of_pillow(augmentor):
    images = smooth_images(6, 40, 50).round()
    draws = torch.rand(6, augmentor.num_draws, generator=torch.Generator().manual_seed(0))
    found = augmentor.augment(images, draws)
    for image, moves, distorted in zip(images, augmentor.moves(draws), found, strict=True):
        picture = Image.fromarray(image.numpy().astype(np.uint8))
        data = list(mesh(moves.numpy(), 40, 50))
        expected = np.asarray(picture.transform(picture.size, Image.Transform.MESH, data, Image.Resampling.BILINEAR))
        difference = np.abs(distorted.numpy() - expected)
        # Pillow rounds, and what a pixel at the edge of a fold shows is up to rounding.
        assert difference.mean() < 1
        assert np.quantile(difference, 0.98) < 2


def test_the_knots_of_a_distortion_move_uniformly_and_on_their_own():
    distort = Distort(grid_width=3, grid_height=3, magnitude=2.5)
    moves = distort.moves(torch.rand(20_000, distort.num_draws, generator=torch.Generator().manual_seed(0))).flatten(1)
    assert moves.abs().max() <= 2.5
    assert moves.std(dim=0) == pytest.approx(5 / 12**0.5, abs=0.03)
    assert (moves.T.corrcoef() - torch.eye(8)).abs().max() < 0.04


@pytest.mark.parametrize(
    ("corner", "method", "largest"),
    [
        ("bell", "in", (4, 4)),
        ("ul", "in", (0, 0)),
        ("ur", "in", (0, 8)),
        ("dl", "in", (8, 0)),
        ("dr", "in", (8, 8)),
        ("ul", "out", (8, 8)),
        ("dr", "out", (0, 0)),
    ],
)
def test_a_gaussian_distortion_is_normal_and_largest_where_it_should_be(corner, method, largest):
    augmentor = GaussianDistortion(1.0, 10, 10, 4.0, corner, method, sdx=0.2, sdy=0.2)
    moves = augmentor.moves(torch.rand(5000, augmentor.num_draws, generator=torch.Generator().manual_seed(0)))
    deviations = moves.std(dim=(0, 1))
    row, column = largest
    assert deviations[row, column] >= deviations.max() * 0.97
    assert deviations[row, column] == pytest.approx(4.0, rel=0.25)
    most = moves[:, :, row, column].flatten() / deviations[row, column]
    assert (most.abs() < 1).float().mean() == pytest.approx(0.683, abs=0.02)
    assert moves.mean() == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("kind", [Distort, GaussianDistortion])
def test_images_smaller_than_the_grid_are_refused(kind):
    with pytest.raises(
        DataError, match=rf"^{kind.__name__} has grid_height=4, grid_width=9; got samples of shape \(8, 8"
    ):
        kind(grid_width=9).check((8, 8, 3))
