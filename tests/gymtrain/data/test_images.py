import io
import os
import threading
import warnings
import zlib

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from drawn_images import drawn, encoded
from hypothesis import given, settings
from hypothesis import strategies as st

from gymtrain.data.images import BadImageError, Images

CARD = PIL.Image.fromarray(np.arange(5 * 4 * 3, dtype=np.uint8).reshape(4, 5, 3) * 4)


def pixels(source, **options):
    return np.asarray(Images([source], **options).decode(0))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_a_file_of_a_format_without_loss_gives_its_pixels(kind):
    assert np.array_equal(pixels(encoded(CARD, kind)), np.asarray(CARD))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "AVIF"])
def test_a_file_of_a_format_with_loss_gives_nearly_its_pixels(kind):
    image = drawn("circle", 0)

    found = pixels(encoded(image, kind, quality=95)).astype(int)

    assert found.shape == (40, 48, 3)
    assert np.abs(found - np.asarray(image)).mean() < 12


def test_a_path_bytes_an_image_and_an_array_give_the_same(tmp_path):
    path = tmp_path / "card.png"
    CARD.save(path)

    all_forms = [path, str(path), path.read_bytes(), CARD, np.asarray(CARD)]

    assert all(np.array_equal(pixels(each), np.asarray(CARD)) for each in all_forms)


def test_a_wrong_extension_does_not_matter(tmp_path):
    path = tmp_path / "card.jpg"
    path.write_bytes(encoded(CARD, "PNG"))

    assert np.array_equal(pixels(path), np.asarray(CARD))


def test_grey_and_two_coloured_images_become_rgb():
    grey = PIL.Image.fromarray(np.array([[0, 100], [200, 255]], np.uint8))

    assert pixels(encoded(grey, "PNG"))[:, :, 1].tolist() == [[0, 100], [200, 255]]
    assert set(pixels(encoded(grey.convert("1"), "PNG")).ravel().tolist()) == {0, 255}


def test_a_palette_is_looked_up():
    assert np.array_equal(pixels(encoded(CARD.convert("P"), "PNG")), np.asarray(CARD.convert("P").convert("RGB")))


def test_cmyk_becomes_rgb():
    red = PIL.Image.new("RGB", (16, 16), (200, 30, 40))

    found = pixels(encoded(red.convert("CMYK"), "JPEG"))

    assert np.abs(found.astype(int) - [200, 30, 40]).max() < 8


def test_transparent_parts_are_white():
    image = PIL.Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    image.putpixel((1, 0), (10, 20, 30, 0))

    assert pixels(encoded(image, "PNG")).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_sixteen_bits_are_scaled_and_not_cut_off():
    deep = PIL.Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16))

    assert pixels(encoded(deep, "PNG"))[0, :, 0].tolist() == [0, 100, 255]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_that_the_camera_turned_comes_upright(orientation, kind):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    turned = encoded(CARD.resize((50, 40)), kind, exif=exif, **options)
    expected = np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(turned))).convert("RGB"))

    assert np.array_equal(pixels(turned), expected)
    assert np.array_equal(pixels(PIL.Image.open(io.BytesIO(turned))), expected)


def test_the_first_frame_of_what_moves_is_used():
    frames = [PIL.Image.new("L", (3, 3), 10), PIL.Image.new("L", (3, 3), 200)]

    found = pixels(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))

    assert (found == 10).all()


def test_an_image_one_pixel_wide_is_an_image():
    assert pixels(encoded(PIL.Image.new("RGB", (1, 7)), "PNG")).shape == (7, 1, 3)


def test_a_large_jpeg_is_decoded_at_a_fraction_where_that_suffices_and_lies_right():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    image = encoded(drawn("square", 3, (400, 300)), "JPEG", exif=exif)

    small = Images([image]).decode(0, at_least=(30, 40))

    assert small.size == (75, 100)
    whole = Images([image]).decode(0).resize((75, 100), PIL.Image.Resampling.BOX)
    assert np.abs(np.asarray(small).astype(int) - np.asarray(whole)).mean() < 3


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", r"row 0 \(bytes\): is empty \(0 bytes\)"),
        (b"no image at all", "is no image of a known format"),
        (encoded(CARD, "EPS"), "is no image of a known format"),
        (encoded(drawn("circle", 1), "JPEG")[:900], "cannot be decoded: .*truncated"),
        (encoded(drawn("circle", 1), "PNG")[:900], "cannot be decoded: "),
        ("/no/such/file.jpg", "'/no/such/file.jpg': there is no such file"),
        ("/", "'/': is a directory"),
        (PIL.Image.fromarray(np.zeros((2, 2), np.float32)), "floating-point numbers; expected 8 or 16 bits"),
        (np.zeros((2, 2), np.float32), r"an array of float32 of shape \(2, 2\); expected uint8"),
        (np.zeros((2, 2, 7), np.uint8), r"an array of uint8 of shape \(2, 2, 7\)"),
        (np.zeros((0, 2, 3), np.uint8), r"of shape \(0, 2, 3\)"),
        (7, "got a int; expected a path, bytes, an image of PIL or an array"),
    ],
)
def test_what_is_no_image_is_told_with_its_name(source, message):
    with pytest.raises(BadImageError, match=message):
        Images([source]).decode(0)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")

    with pytest.raises(BadImageError, match="there is no such file"):
        Images([tmp_path / "pipe.jpg"]).decode(0)


def bomb(side=30_000):
    """A PNG of a few hundred kilobytes that would decode to 2.7 GB."""

    def chunk(name, content):
        body = name + content
        return len(content).to_bytes(4) + body + zlib.crc32(body).to_bytes(4)

    header = side.to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0])
    squeezed = zlib.compress(bytes(1 << 20), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", squeezed) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_before_it_is_decoded_and_without_a_warning_of_pillow():
    with (
        warnings.catch_warnings(),
        pytest.raises(BadImageError, match="has 30000 x 30000 pixels, more than the 80,000,000"),
    ):
        warnings.simplefilter("error")
        Images([bomb()]).decode(0)


def test_the_limit_of_pixels_can_be_set_and_pillow_keeps_its_own():
    before = PIL.Image.MAX_IMAGE_PIXELS

    with pytest.raises(BadImageError, match="has 5 x 4 pixels, more than the 19 that"):
        pixels(encoded(CARD, "PNG"), max_pixels=19)
    assert pixels(encoded(CARD, "PNG"), max_pixels=20).shape == (4, 5, 3)

    assert before == PIL.Image.MAX_IMAGE_PIXELS


def test_threads_that_decode_at_once_leave_the_limit_of_pillow_as_it_was():
    before = PIL.Image.MAX_IMAGE_PIXELS
    images = Images([encoded(drawn("circle", 2), "JPEG")] * 50)
    threads = [threading.Thread(target=lambda: [images.decode(row) for row in range(50)]) for _ in range(4)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert before == PIL.Image.MAX_IMAGE_PIXELS


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"]), data=st.data())
def test_a_damaged_file_is_decoded_or_refused_and_nothing_else(kind, data):
    whole = bytearray(encoded(CARD.resize((20, 16)), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(0, len(whole)))])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about the notes of cameras
        try:
            found = Images([damaged], max_pixels=10_000).decode(0)
        except BadImageError:
            return
    assert found.mode == "RGB"
    assert found.width * found.height <= 10_000


def test_a_part_of_images_is_by_position():
    images = Images([CARD, b"x", "y.jpg"])

    assert images.take(np.array([2, 0])).sources == ["y.jpg", CARD]
    assert images.take(slice(1, None)).sources == [b"x", "y.jpg"]


def test_the_digest_of_a_file_is_that_of_its_bytes_and_of_an_array_that_of_its_pixels(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    images = Images([tmp_path / "a", b"abc", np.zeros((2, 3, 3), np.uint8), np.zeros((3, 2, 3), np.uint8)])

    assert images.digest(0) == images.digest(1)
    assert images.digest(2) != images.digest(3)


def test_an_image_of_pixels_is_encoded_without_loss_and_a_file_stays_what_it_is(tmp_path):
    file = encoded(CARD, "JPEG")
    (tmp_path / "a.jpg").write_bytes(file)
    images = Images([np.asarray(CARD), file, tmp_path / "a.jpg"])

    assert np.array_equal(pixels(images.encoded(0)), np.asarray(CARD))
    assert images.encoded(1) == images.encoded(2) == file


def test_a_look_at_the_beginning_finds_what_is_missing_or_no_image(tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    images = Images([CARD, encoded(CARD, "PNG"), tmp_path / "bad.jpg", "gone.jpg", bomb()])

    images.check(0)
    images.check(1)
    for row, message in [(2, "is no image"), (3, "no such file"), (4, "30000 x 30000")]:
        with pytest.raises(BadImageError, match=message):
            images.check(row)
