"""Images in every form in which people have them, given to a model that was trained on files."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from drawn_images import drawn, encoded, folder_of_images

from gymtrain import Trainer, inspect
from gymtrain.errors import InputError


@pytest.fixture(scope="module")
def trainer(shape_bundle: Path) -> Trainer:
    return Trainer.load(shape_bundle)


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A model of grey pixels, 12 high and 16 wide, which is no model of files."""
    X = np.stack([np.asarray(drawn("circle", row, (16, 12)).convert("L")) for row in range(20)])
    trainer = Trainer(
        dataset={"dataset": {"type": "arrays", "X": X, "y": np.arange(20) % 2}, "preprocessors": ["divide"]},
        model={"model": {"type": "cnn", "channels": [4]}, "training": {"epochs": 1}},
        tracking={"root": str(tmp_path_factory.mktemp("pixels"))},
    )
    trainer.train()
    return trainer


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A file without losses, so that its pixels are the same however it is given."""
    path = tmp_path / "photo.png"
    drawn("circle", 5, (53, 41)).save(path)
    return path


def test_one_image_is_the_same_in_every_form(trainer: Trainer, photo: Path) -> None:
    picture = PIL.Image.open(photo)
    array = np.asarray(picture)
    expected = trainer.predict_proba(str(photo))
    forms = {
        "a path": photo,
        "a list of a path": [str(photo)],
        "an array of paths": np.array([str(photo)]),
        "bytes": photo.read_bytes(),
        "a bytearray": bytearray(photo.read_bytes()),
        "a list of a view": [memoryview(photo.read_bytes())],
        "an image of PIL": picture,
        "a tuple of one": (picture,),
        "an array": array,
        "an array of one": array[None],
        "numbers": array.astype(np.float64),
        "a list of an array": [array.astype(np.int64)],
        "a tensor": torch.from_numpy(array.copy()),
        "a tensor of one": torch.from_numpy(array.copy())[None],
        "a tensor of numbers with gradients": torch.tensor(array, dtype=torch.float32, requires_grad=True),
        "a list of a tensor": [torch.from_numpy(array.copy())],
        "a set": {photo},
    }

    for form, X in forms.items():
        probabilities = trainer.predict_proba(X)
        assert probabilities.shape == (1, 2), form
        assert probabilities.tobytes() == expected.tobytes(), form


def test_a_list_of_all_forms_is_predicted_as_each_alone(trainer: Trainer, photo: Path, shapes: Path) -> None:
    files = sorted(shapes.rglob("*.jpg"))
    mixed = [photo, files[0].read_bytes(), PIL.Image.open(files[1]), np.zeros((9, 7), np.uint8), str(files[2])]

    together = trainer.predict_proba(mixed)

    assert together.tobytes() == b"".join(trainer.predict_proba([each]).tobytes() for each in mixed)


def test_a_folder_is_its_images_sorted_by_name(trainer: Trainer, tmp_path: Path) -> None:
    for seed, name in enumerate(("b.JPG", "a.png", "c.webp", "._a.png", ".hidden.jpg", "notes.txt")):
        (tmp_path / name).write_bytes(encoded(drawn("square", seed), "PNG"))
    (tmp_path / "below").mkdir()
    (tmp_path / "below.jpg").mkdir()
    drawn("square", 9).save(tmp_path / "below" / "d.png")

    found = trainer.predict_proba(tmp_path)

    assert (
        found.tobytes() == trainer.predict_proba([tmp_path / each for each in ("a.png", "b.JPG", "c.webp")]).tobytes()
    )
    assert (trainer.predict_proba(tmp_path / "below" / ".." / "a.png") == found[:1]).all()


def test_bits_do_not_depend_on_the_others_the_order_or_the_block(trainer: Trainer, shapes: Path) -> None:
    files = sorted(shapes.rglob("*.jpg"))

    probabilities = trainer.predict_proba(files)

    assert trainer.predict_proba(files[::-1])[::-1].tobytes() == probabilities.tobytes()
    for block_rows in (1, 7, 8192):
        blocks = trainer.predict_blocks(iter(files), proba=True, block_rows=block_rows)
        assert np.concatenate(list(blocks)).tobytes() == probabilities.tobytes()


@pytest.mark.slow
def test_bits_are_the_same_in_a_fresh_process(trainer: Trainer, shape_bundle: Path, shapes: Path) -> None:
    files = sorted(shapes.rglob("*.jpg"))
    code = (
        "import sys; from gymtrain import Trainer; "
        "sys.stdout.buffer.write(Trainer.load(sys.argv[1]).predict_proba(sys.argv[2:]).tobytes())"
    )
    command = [sys.executable, "-c", code, str(shape_bundle), *map(str, files)]
    told = subprocess.run(command, capture_output=True, check=True).stdout
    assert told == trainer.predict_proba(files).tobytes()


def test_blocks_come_of_a_folder_a_list_or_an_iterator_of_images_and_of_blocks(trainer: Trainer, shapes: Path) -> None:
    circles = sorted((shapes / "circle").iterdir())
    labels = trainer.predict(circles).tolist()
    asked: list[Path] = []

    def one_by_one() -> Iterator[Path]:
        for path in circles:
            asked.append(path)
            yield path

    def sizes(source: object, block_rows: int = 8) -> list[int]:
        blocks = list(trainer.predict_blocks(source, block_rows=block_rows))
        assert np.concatenate(blocks).tolist() == labels
        return [len(block) for block in blocks]

    assert sizes(shapes / "circle") == sizes(circles) == sizes(one_by_one()) == [8, 8, 4]
    assert sizes(iter([circles[:3], circles[3], circles[4], circles[5:]])) == [3, 2, 15]
    asked.clear()
    next(trainer.predict_blocks(one_by_one(), block_rows=4))
    assert len(asked) <= 5


def test_labels_are_evaluated_against_files(trainer: Trainer, shapes: Path) -> None:
    files = sorted(shapes.rglob("*.jpg"))

    found = trainer.evaluate(files, [file.parent.name for file in files])

    right = trainer.predict(files) == [file.parent.name for file in files]
    assert found["accuracy"] == pytest.approx(right.mean())


def test_no_images_give_no_answers_of_the_right_shape(trainer: Trainer) -> None:
    assert trainer.predict([]).shape == (0,)
    assert trainer.predict_proba([]).shape == (0, 2)
    assert list(trainer.predict_blocks(iter([]))) == []


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("nowhere.jpg", r"'nowhere\.jpg': there is no such file"),
        ("", "'': there is no such file"),
        (["../nowhere.jpg"], r"'\.\./nowhere\.jpg': there is no such file"),
        (
            "https://a.example/x.jpg",
            r"got the address 'https://a\.example/x\.jpg'; download it first, and give the path",
        ),
        (["s3://bucket/x.jpg"], r"got the address 's3://bucket/x\.jpg'; download it first"),
        (b"GIF89", r"row 0 \(bytes\): "),
        (b"", r"is empty \(0 bytes\)"),
        (
            np.zeros((2, 3, 30, 40), np.uint8),
            r"shape \(2, 3, 30, 40\); .*; the channels come last: X\.movedim\(1, -1\)",
        ),
        (np.zeros(7, np.uint8), r"shape \(7,\); expected images, \(rows, height, width\)"),
        (np.full((8, 8, 3), 0.5), r"from 0\.5 to 0\.5; .* give np\.round\(255 \* X\)\.astype\(np\.uint8\)"),
        (np.ones((8, 8, 3), bool), r"give np\.round\(255 \* X\)\.astype\(np\.uint8\)"),
        (torch.full((1, 8, 8, 3), -1.0), r"got numbers from -1 to -1; .* whole numbers from 0 to 255"),
        (np.zeros((8, 8), np.uint8), r"shape \(8, 8\); expected images, .*; one grey image is X\[None\]"),
        (np.full((1, 8, 8), 300), r"got numbers from 300 to 300"),
        (np.full((1, 8, 8), np.nan), r"got numbers from nan"),
        ({"path": ["x.jpg"]}, r"got a dict; expected images: paths, bytes, images of PIL or arrays of pixels"),
        (3, r"got a int; expected images"),
        (io.BytesIO(b"GIF89a"), r"got the open file <_io.BytesIO.*>; give its path, or its bytes: X\.read\(\)"),
        (None, r"got a NoneType; expected images"),
        (["x.jpg", 3], r"row 1: got a int; expected a path, bytes, an image of PIL or an array of pixels"),
        ([[1, 2], [3, 4]], r"row 0: got a list; expected a path"),
    ],
)
def test_what_is_no_image_is_refused_with_what_to_do(trainer: Trainer, X: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        trainer.predict(X)


def test_a_frame_is_no_image(trainer: Trainer) -> None:
    import pandas as pd

    with pytest.raises(InputError, match="got a DataFrame; expected images"):
        trainer.predict(pd.DataFrame({"path": ["x.jpg"]}))


def test_an_image_of_pil_that_cannot_be_read_is_no_answer(trainer: Trainer, photo: Path, tmp_path: Path) -> None:
    closed = PIL.Image.open(photo)
    closed.close()
    (tmp_path / "short.png").write_bytes(photo.read_bytes()[:2000])

    with PIL.Image.open(tmp_path / "short.png") as short:
        for picture in (closed, short):
            with pytest.raises(InputError, match=r"row 0 \(an image\): cannot be decoded"):
                trainer.predict(picture)


def test_a_folder_without_images_is_refused(trainer: Trainer, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")

    with pytest.raises(InputError, match=rf"'{re.escape(str(tmp_path))}' holds no image; expected files that end in"):
        trainer.predict(tmp_path)
    with pytest.raises(InputError, match="holds no image"):
        list(trainer.predict_blocks(tmp_path))


@pytest.mark.parametrize("number", [3, 300])
def test_a_damaged_file_among_good_ones_is_named(trainer: Trainer, shapes: Path, tmp_path: Path, number: int) -> None:
    files = sorted(shapes.rglob("*.jpg"))
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(files[0].read_bytes()[:300])
    many = [*(files * 8)[:number], damaged]

    with pytest.raises(InputError, match=r"damaged\.jpg': cannot be decoded"):
        trainer.predict(many)
    with pytest.raises(InputError, match=rf"in block {number // 8}, .*damaged\.jpg': cannot be decoded"):
        list(trainer.predict_blocks(iter(many), block_rows=8))


def test_a_model_of_one_size_names_the_image_of_another(shapes: Path, tmp_path: Path) -> None:
    for row in range(8):
        folder = tmp_path / "photos" / ("a", "b")[row % 2]
        folder.mkdir(parents=True, exist_ok=True)
        drawn("circle", row, (16, 12)).save(folder / f"{row}.png")
    trainer = Trainer(
        dataset={"dataset": {"type": "image_folder", "path": str(tmp_path / "photos")}, "image_cache_gb": 0},
        model={"model": {"type": "linear"}, "training": {"epochs": 1}},
        tracking={"root": str(tmp_path / "runs")},
    )
    trainer.train()

    assert trainer.predict(tmp_path / "photos" / "a").shape == (4,)
    with pytest.raises(InputError, match=r"shape \(14, 20, 3\); the model was trained on \(12, 16, 3\): bring them to"):
        trainer.predict(drawn("circle", 0, (20, 14)))
    with pytest.raises(InputError, match=r"images differ in size: .* is 16 x 12 and .* 20 x 14"):
        trainer.predict([drawn("circle", 0, (16, 12)), drawn("circle", 0, (20, 14))])


def test_a_model_of_pixels_takes_files_of_just_its_size(pixels: Trainer, tmp_path: Path) -> None:
    picture = drawn("square", 3, (16, 12))
    picture.save(tmp_path / "a.png")
    picture.convert("L").save(tmp_path / "b.png")
    drawn("square", 3, (20, 12)).save(tmp_path / "large.png")
    array = np.asarray(picture.convert("L"))

    expected = pixels.predict_proba(array[None])

    for X in (tmp_path / "a.png", str(tmp_path / "b.png"), [picture], (tmp_path / "b.png").read_bytes(), [array]):
        assert pixels.predict_proba(X).tobytes() == expected.tobytes()
    assert len(list(pixels.predict_blocks(iter([tmp_path / "a.png", tmp_path / "b.png"])))) == 1
    with pytest.raises(InputError, match=r"large\.png': has 20 x 12 pixels; the model was trained on 16 x 12: resize"):
        pixels.predict(tmp_path)
    with pytest.raises(InputError, match="there is no such file"):
        pixels.predict("nowhere.png")


def test_images_that_were_left_out_are_counted_in_the_result_the_bundle_and_its_card(tmp_path: Path) -> None:
    folder = folder_of_images(tmp_path / "photos", 12)
    for number in range(7):
        (folder / "circle" / f"broken {number}.jpg").write_bytes(b"not a photo")
    trainer = Trainer(
        dataset={
            "dataset": {"type": "image_folder", "path": str(folder)},
            "preprocessors": [{"type": "image_resize", "width": 8, "height": 8}],
            "on_bad_sample": "skip",
            "image_cache_gb": 0,
        },
        model={"model": {"type": "linear"}, "training": {"epochs": 1}},
        tracking={"root": str(tmp_path / "runs")},
    )

    with pytest.warns(UserWarning, match="7 of 19 images cannot be decoded"):
        bad = trainer.train()["bad_samples"]
    trainer.save(tmp_path / "model.zip")

    assert bad["count"] == 7
    assert [text.partition(":")[0] for text in bad["first"]] == [
        repr(str(folder / "circle" / f"broken {number}.jpg")) for number in range(5)
    ]
    content = inspect(tmp_path / "model.zip")
    assert content["results"]["bad_samples"] == bad == Trainer.load(tmp_path / "model.zip").result["bad_samples"]
    assert f"7 images could not be used and were left out, the first of them: {bad['first'][0]}" in content["readme"]
