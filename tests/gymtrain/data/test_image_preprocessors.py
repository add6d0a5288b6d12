import numpy as np
import PIL.Image
import pytest
import torch
from drawn_images import drawn
from hypothesis import given
from hypothesis import strategies as st

from gymtrain.data.decoding import ImageArray
from gymtrain.data.image_preprocessors import CenterCrop, Grayscale, GrayscaleToColor, ImageResize, Normalize
from gymtrain.data.images import Images
from gymtrain.data.preprocessors import Divide, MinMaxScaler, Pipeline
from gymtrain.errors import DataError

COLOUR = np.stack([np.asarray(drawn("circle", seed)) for seed in range(3)])
TARGETS = np.zeros(3, np.int64)


def test_a_resized_array_is_what_pillow_makes_of_the_picture():
    found = ImageResize(width=20, height=10).transform(COLOUR)

    expected = PIL.Image.fromarray(COLOUR[1]).resize((20, 10), PIL.Image.Resampling.BILINEAR)
    assert found.shape == (3, 10, 20, 3)
    assert found.dtype == np.uint8
    assert np.array_equal(found[1], np.asarray(expected))


@pytest.mark.parametrize("shape", [(2, 40, 48), (2, 40, 48, 1), (2, 40, 48, 2), (2, 40, 48, 5)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_arrays_of_any_channels_are_resized_alike(shape, dtype):
    X = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)

    found = ImageResize(width=12, height=10).transform(X)

    assert found.dtype == dtype
    assert found.shape == (2, 10, 12, *shape[3:])
    assert abs(found.astype(float).mean() - X.astype(float).mean()) < 1.5


def test_digits_keep_their_grey_values_between_the_pixels():
    X = np.array([[[0.0, 16.0], [0.0, 16.0]]], np.float32)

    assert ImageResize(width=4, height=1).transform(X)[0, 0].tolist() == [0.0, 4.0, 12.0, 16.0]


def test_a_crop_keeps_the_proportions():
    wide = np.zeros((1, 10, 30, 3), np.uint8)
    wide[:, :, 10:20] = 255

    found = ImageResize(width=10, height=10, aspect="crop").transform(wide)

    assert (found == 255).all()


def test_the_middle_is_cut_out_and_what_lacks_is_black():
    X = np.full((1, 2, 4), 7, np.uint8)

    assert CenterCrop(width=2, height=4).transform(X)[0].tolist() == [[0, 0], [7, 7], [7, 7], [0, 0]]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_grey_is_the_luma_of_pillow(dtype):
    expected = np.stack([np.asarray(PIL.Image.fromarray(image).convert("L")) for image in COLOUR])

    found = Grayscale().transform(COLOUR.astype(dtype))

    assert found.shape == (*COLOUR.shape[:3], 1)
    assert np.abs(found[..., 0].astype(float) - expected).max() <= (0 if dtype == np.uint8 else 1)


def test_grey_images_stay_grey_and_become_three_equal_channels():
    grey = Grayscale().transform(COLOUR)

    assert Grayscale().transform(grey) is grey
    colour = GrayscaleToColor().transform(grey)
    assert all(np.array_equal(colour[..., channel], grey[..., 0]) for channel in range(3))
    assert GrayscaleToColor().transform(COLOUR) is COLOUR


def test_normalising_learns_the_mean_and_the_deviation_of_each_channel():
    step = Normalize()

    step.fit(COLOUR, TARGETS)
    found = step.transform(COLOUR.astype(np.float32))

    assert np.allclose(found.mean((0, 1, 2)), 0, atol=1e-5)
    assert np.allclose(found.std((0, 1, 2)), 1, atol=1e-5)


def test_a_channel_that_is_constant_becomes_0():
    step = Normalize()
    step.fit(np.full((2, 3, 3, 1), 9, np.uint8), TARGETS[:2])

    assert (step.transform(np.full((1, 3, 3, 1), 9, np.float32)) == 0).all()


def test_normalising_with_given_numbers_learns_nothing():
    step = Normalize(mean=[1.0, 2.0, 3.0], std=[2.0, 2.0, 2.0])
    step.fit(COLOUR, TARGETS)

    assert step.transform(np.full((1, 1, 1, 3), 5, np.float32)).ravel().tolist() == [2.0, 1.5, 1.0]
    assert step.save() == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": [0.5]}, "mean and std belong together"),
        ({"mean": [0.5], "std": [1.0, 1.0]}, "1 means and 2 standard deviations"),
        ({"mean": [0.5], "std": [0.0]}, r"std is \[0.0\]; expected numbers above 0"),
    ],
)
def test_wrong_numbers_to_normalise_by_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Normalize(**arguments)


def test_as_many_means_as_channels_are_wanted():
    with pytest.raises(DataError, match="got 2 means for images of 3 channels"):
        Normalize(mean=[0.0, 0.0], std=[1.0, 1.0]).fit(COLOUR, TARGETS)


@pytest.mark.parametrize("step", [ImageResize(4, 4), CenterCrop(4, 4), Grayscale(), GrayscaleToColor()])
def test_rows_that_are_no_images_are_refused(step):
    with pytest.raises(DataError, match=r"works on images, .*; got rows of shape \(64,\)"):
        step.transform(np.zeros((2, 64), np.float32))


def test_grey_needs_one_or_three_channels():
    with pytest.raises(DataError, match=r"of 1 or 3; got rows of shape \(4, 4, 2\)"):
        Grayscale().transform(np.zeros((1, 4, 4, 2), np.float32))


@given(st.integers(0, 2**32 - 1), st.sampled_from([(3, 4, 5, 3), (3, 4, 5, 1), (3, 4, 5)]))
def test_what_is_done_to_a_batch_has_the_bits_of_what_is_done_to_rows(seed, shape):
    X = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    pipeline = Pipeline([("divide", Divide(255.0)), ("normalize", Normalize())])
    pipeline.fit(X, TARGETS)

    on_batch = pipeline.transform_batch(torch.from_numpy(X).float()).numpy()

    assert np.array_equal(on_batch, pipeline.transform(X).astype(np.float32))


def test_steps_are_late_from_where_all_are_elementwise():
    steps = {"resize": ImageResize(4, 4), "divide": Divide(), "normalize": Normalize(), "range": MinMaxScaler()}

    def late(*names):
        return Pipeline([(name, steps[name]) for name in names]).late

    assert late("resize", "divide", "normalize") == 1
    assert late("divide", "range", "normalize") == 2
    assert late("resize", "range") == 2


def test_fitting_after_an_elementwise_step_looks_at_a_few_rows_at_a_time():
    class Counted(ImageArray):
        most = 0

        def __getitem__(self, rows):
            found = super().__getitem__(rows)
            Counted.most = max(Counted.most, len(found))
            return found

    images = Counted(np.random.default_rng(0).integers(0, 256, (600, 4, 4, 3), dtype=np.uint8))
    pipeline = Pipeline([("divide", Divide()), ("normalize", Normalize())])

    pipeline.fit(images, np.zeros(600, np.int64))

    assert Counted.most <= 256
    assert np.allclose(pipeline.steps[1][1].shift, np.asarray(images).mean((0, 1, 2)) / 255, atol=1e-6)


def test_pictures_and_arrays_of_them_go_the_same_way():
    pipeline = Pipeline([("image_resize", ImageResize(16, 16)), ("grayscale", Grayscale()), ("divide", Divide())])

    from_pictures = pipeline.transform(Images(list(COLOUR)))

    assert np.array_equal(from_pictures, pipeline.transform(COLOUR))
    assert from_pictures.dtype == np.float32


def test_pictures_of_different_sizes_are_no_error_before_a_resize():
    pictures = Images([np.zeros((4, 6, 3), np.uint8), np.zeros((9, 3), np.uint8)])

    assert Pipeline([("image_resize", ImageResize(5, 5))]).transform(pictures).shape == (2, 5, 5, 3)
    with pytest.raises(DataError, match=r"images differ in size: .* is 6 x 4 and .* 3 x 9; put .*image_resize"):
        Pipeline([]).transform(pictures)


def test_channels_that_come_first_are_told():
    with pytest.raises(DataError, match=r"shape \(3, 32, 32\), of which the channels seem to come first"):
        ImageResize(8, 8).transform(np.zeros((2, 3, 32, 32), np.uint8))
