import os
import pickle
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from drawn_images import drawn, encoded, folder_of_images
from filelock import FileLock

from gymtrain.data.decoding import Decoder, ImageArray
from gymtrain.data.image_cache import ImageCache
from gymtrain.data.image_preprocessors import ImageResize
from gymtrain.data.images import BadImageError, Images
from gymtrain.errors import DataError

STEPS = [ImageResize(8, 8)]


@pytest.fixture
def files(tmp_path):
    return sorted(folder_of_images(tmp_path / "images", 12).rglob("*.jpg"))


@pytest.fixture
def cache(tmp_path):
    return ImageCache(tmp_path / "cache", 1e9)


def sets(cache):
    return sorted(path.name for path in cache.directory.iterdir() if path.is_dir())


def test_pixels_come_out_of_the_cache_as_they_went_in(files, cache):
    decoder = Decoder(Images(files), STEPS)

    first, _ = cache.decoded(decoder)
    for file in files:
        file.with_suffix(".moved").write_bytes(b"")  # beside them: nothing of these is looked at
    again, bad = cache.decoded(Decoder(Images(files), STEPS))

    assert np.array_equal(np.asarray(first), decoder[:])
    assert np.array_equal(np.asarray(again), decoder[:])
    assert bad == {}
    assert len(sets(cache)) == 1


def test_the_cache_is_used_and_not_only_written(files, cache):
    cache.decoded(Decoder(Images(files), STEPS))
    np.load(cache.directory / sets(cache)[0] / "pixels.npy", mmap_mode="r+")[:] = 77

    again, _ = cache.decoded(Decoder(Images(files), STEPS))

    assert (np.asarray(again) == 77).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda files: Decoder(Images(files), [ImageResize(8, 9)]),
        lambda files: Decoder(Images(files), [ImageResize(8, 8, resample="nearest")]),
        lambda files: Decoder(Images(files[::-1]), STEPS),
        lambda files: Decoder(Images(files[1:]), STEPS),
        lambda files: Decoder(Images(files, max_pixels=10_000), STEPS),
        lambda files: (files[0].write_bytes(files[1].read_bytes() + b" "), Decoder(Images(files), STEPS))[1],
    ],
)
def test_other_files_or_steps_are_another_set(files, cache, change):
    before = Decoder(Images(files), STEPS).key()

    assert change(files).key() != before


def test_what_is_written_into_the_pixels_stays_out_of_the_cache(files, cache):
    first, _ = cache.decoded(Decoder(Images(files), STEPS))

    first.source[:] = 0

    again, _ = cache.decoded(Decoder(Images(files), STEPS))
    assert np.asarray(again).any()


def test_bad_files_are_told_out_of_the_cache_too(files, cache):
    files[3].write_bytes(b"")
    files[5].write_bytes(files[5].read_bytes()[:500])

    _, bad = cache.decoded(Decoder(Images(files), STEPS))
    _, again = cache.decoded(Decoder(Images(files), STEPS))

    assert list(bad) == [3, 5]
    assert again == bad
    assert str(files[3]) in bad[3]


def test_a_set_that_is_too_large_is_decoded_at_each_look(files, tmp_path):
    cache = ImageCache(tmp_path / "cache", limit=100)
    files[3].write_bytes(b"")

    images, bad = cache.decoded(Decoder(Images(files), STEPS))

    assert images.is_decoded_anew
    assert list(bad) == [3]
    assert np.array_equal(images[4:6], Decoder(Images(files), STEPS)[4:6])
    assert not (tmp_path / "cache").exists()


def test_what_was_used_longest_ago_makes_room(files, tmp_path):
    one = 12 * 8 * 8 * 3
    cache = ImageCache(tmp_path / "cache", limit=2.5 * one)
    decoders = [Decoder(Images(files[turn:] + files[:turn]), STEPS) for turn in range(3)]
    for decoder in decoders[:2]:
        cache.decoded(decoder)
        time.sleep(0.02)
    cache.decoded(decoders[0])  # used again, and thus later than the other

    kept, _ = cache.decoded(decoders[2])

    assert sets(cache) == sorted([decoders[0].key(), decoders[2].key()])
    assert np.array_equal(np.asarray(kept), decoders[2][:])


def test_pixels_that_are_removed_while_they_are_used_stay_usable(files, tmp_path):
    cache = ImageCache(tmp_path / "cache", limit=12 * 8 * 8 * 3 * 1.5)
    first, _ = cache.decoded(Decoder(Images(files), STEPS))
    before = np.asarray(first).copy()

    cache.decoded(Decoder(Images(files[::-1]), STEPS))

    assert len(sets(cache)) == 1
    assert np.array_equal(np.asarray(first), before)


def test_images_of_different_sizes_leave_nothing_behind(files, cache):
    with pytest.raises(DataError, match=f"images differ in size: '{files[0]}' is 48 x 40 and '.*' .*; put"):
        cache.decoded(Decoder(Images(files), []))

    assert sets(cache) == []


def test_no_image_that_can_be_decoded_is_told(cache):
    with pytest.raises(DataError, match="none of 2 images can be decoded"):
        cache.decoded(Decoder(Images([b"", b"x"]), STEPS))


def test_a_place_that_cannot_be_written_costs_speed_and_not_the_training(files, tmp_path):
    (tmp_path / "file").write_text("")
    cache = ImageCache(tmp_path / "file" / "cache", 1e9)

    with pytest.warns(
        UserWarning, match=r"images are decoded in every epoch, because .* cannot be kept in '.*cache': Not a dir"
    ):
        images, _ = cache.decoded(Decoder(Images(files), STEPS))

    assert images.is_decoded_anew


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_decodes_leaves_no_set_and_the_next_one_makes_it(tmp_path):
    files = folder_of_images(tmp_path / "images", 200, (900, 800))
    code = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from gymtrain.data.decoding import Decoder
        from gymtrain.data.image_cache import ImageCache
        from gymtrain.data.image_preprocessors import ImageResize
        from gymtrain.data.images import Images
        files = sorted(Path({str(files)!r}).rglob("*.jpg"))
        cache = ImageCache(Path({str(tmp_path / "cache")!r}), 1e9)
        images, bad = cache.decoded(Decoder(Images(files), [ImageResize(64, 64)]))
        print(images.shape, len(bad))
    """)
    killed = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    while not list((tmp_path / "cache").glob("*.unfinished/pixels.npy")) and killed.poll() is None:
        time.sleep(0.001)
    killed.kill()
    killed.communicate()
    assert not list((tmp_path / "cache").glob("*/bad.json")) or killed.returncode == 0

    two = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [each.communicate(timeout=120)[0] for each in two]

    assert said == ["(200, 64, 64, 3) 0\n"] * 2
    assert [path.suffix for path in (tmp_path / "cache").iterdir() if path.is_dir()] == [""]


def test_rows_that_are_chosen_cost_nothing_until_they_are_looked_at():
    images = ImageArray(np.arange(5 * 2 * 2 * 1, dtype=np.uint8).reshape(5, 2, 2, 1))

    part = images.take(np.array([4, 0, 2])).take(slice(1, None))

    assert part.shape == (2, 2, 2, 1)
    assert part.nbytes == 8
    assert [block.tolist() for block in part.blocks(1)] == [images[0:1].tolist(), images[2:3].tolist()]


def test_a_file_that_vanishes_is_an_error_with_its_path(files):
    images = ImageArray(Decoder(Images(files), STEPS))
    files[2].unlink()

    with pytest.raises(BadImageError, match=f"'{files[2]}': there is no such file"):
        images.gathered(np.array([1, 2]))


def test_a_file_that_vanishes_is_replaced_where_it_may_be_skipped(files):
    images = ImageArray(Decoder(Images(files), STEPS, skip=True))
    files[2].unlink()
    files[11].unlink()

    with pytest.warns(UserWarning, match=f"2 images were left out of a batch: '{files[2]}': there is no such file"):
        pixels, rows = images.gathered(np.array([2, 5, 11]))

    assert rows.tolist() == [5, 5, 5]
    assert np.array_equal(pixels, images[np.array([5, 5, 5])])


def test_threads_give_what_one_gives():
    images = Images([encoded(drawn("square", seed), "JPEG") for seed in range(100)])

    assert np.array_equal(Decoder(images, STEPS, threads=1)[:], Decoder(images, STEPS, threads=7)[:])


def test_a_home_is_found_in_this_order(monkeypatch):
    from gymtrain.data.home import data_home

    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.delenv("GYMTRAIN_DATA", raising=False)
    assert data_home() == Path("/xdg/gymtrain")
    monkeypatch.setenv("GYMTRAIN_DATA", "/data")
    assert data_home() == Path("/data")
    assert data_home("/given") == Path("/given")


class Inverted(ImageResize):
    """A step of somebody's, which may change while its name and arguments stay."""


def test_what_a_step_of_somebodys_makes_is_not_kept(files, cache):
    images, _ = cache.decoded(Decoder(Images(files), [Inverted(8, 8)]))

    assert images.is_decoded_anew
    assert not cache.directory.exists()


def test_images_of_pil_are_told_apart_by_what_they_show():
    red = PIL.Image.new("P", (4, 4), 0)
    red.putpalette([255, 0, 0])
    blue = red.copy()
    blue.putpalette([0, 0, 255])

    assert Decoder(Images([red]), STEPS).key() != Decoder(Images([blue]), STEPS).key()


@pytest.mark.parametrize("name", ["pixels.npy", "digests.npy", "bad.json"])
@pytest.mark.parametrize(
    "damage", [lambda file: file.unlink(), lambda file: os.truncate(file, file.stat().st_size // 2)]
)
def test_a_set_that_is_damaged_is_made_again(files, cache, name, damage):
    files[0].write_bytes(b"")  # so that there is something to say of one
    cache.decoded(Decoder(Images(files), STEPS))
    damage(cache.directory / sets(cache)[0] / name)

    images, bad = cache.decoded(Decoder(Images(files), STEPS))

    assert np.array_equal(images[1:], Decoder(Images(files), STEPS)[1:])
    assert not images.is_decoded_anew
    assert list(bad) == [0]


def test_what_another_process_is_busy_with_is_not_removed_to_make_room(files, tmp_path):
    cache = ImageCache(tmp_path / "cache", limit=12 * 8 * 8 * 3 * 1.5)
    cache.decoded(Decoder(Images(files), STEPS))
    busy = sets(cache)[0]

    with FileLock(str(cache.directory / f"{busy}.lock")):
        cache.decoded(Decoder(Images(files[::-1]), STEPS))

    assert busy in sets(cache)
    assert len(sets(cache)) == 2


def test_trouble_of_the_machine_is_not_taken_for_a_bad_image(files, cache, monkeypatch):
    def fails(*arguments, **options):
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr("PIL.Image.Image.resize", fails)
        cache.decoded(Decoder(Images(files), STEPS))

    _, bad = cache.decoded(Decoder(Images(files), STEPS))
    assert bad == {}


def test_a_mapped_set_travels_to_another_process_by_its_path(files, cache):
    images, _ = cache.decoded(Decoder(Images(files), STEPS))
    part = images.take(np.array([3, 1]))

    sent = pickle.dumps(part)

    assert len(sent) < 1000
    assert np.array_equal(np.asarray(pickle.loads(sent)), np.asarray(part))


def test_a_step_that_makes_no_pixels_is_refused(files):
    class Unit(ImageResize):
        def picture(self, image):
            return image.convert("F")

    with pytest.raises(DataError, match=r"Unit.picture made an image of mode 'F' .*; expected pixels of 8 bits"):
        Decoder(Images(files), [Unit(8, 8)])[:]


def test_files_that_were_decoded_before_are_not_read_again_for_their_digests(files, cache):
    cache.decoded(Decoder(Images(files), STEPS))
    expected = [Images(files).digest(row) for row in range(12)]
    known = Decoder(Images(files), STEPS)

    cache.decoded(known)
    for file in files:
        file.unlink()

    assert [known.images.digest(row) for row in range(12)] == expected
    assert known.images.take(np.array([7, 2])).digest(1) == expected[2]
