from __future__ import annotations

import gzip
import io
import logging
import os
import shutil
import sys
import tarfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from image_archives import EACH, PETS, SMALL, idx, pets, state_digest

from gymtrain.data.image_sources.folder import ImageCsv, ImageFolder, image_files
from gymtrain.data.image_sources.published import DogsVsCats
from gymtrain.data.image_sources.small_images import Cifar10, FashionMnist, Mnist, read_idx
from gymtrain.errors import DataError, DownloadError, SpecError
from gymtrain.registry import find
from gymtrain.specs import Dataset as DatasetSpec


def picture(path: Path, colour: tuple[int, int, int] = (200, 30, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (8, 6), colour).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes with two images each."""
    for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"):
        picture(tmp_path / "photos" / name)
    return tmp_path / "photos"


def names(data: Any, root: Path) -> list[str]:
    return [Path(path).relative_to(root).as_posix() for path in data.X.sources]


def loaded(root: Path) -> Any:
    return ImageFolder(str(root)).load()


# Published data sets.


def test_dogs_and_cats_are_downloaded_and_the_files_that_are_none_are_counted_in_one_line(
    mirrored: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = DogsVsCats()
    source.prepare()
    with caplog.at_level(logging.WARNING):
        data = source.load()

    assert (len(data.X), data.task) == (2 * EACH, "binary")
    assert data.y.tolist() == ["cat"] * EACH + ["dog"] * EACH
    assert [Path(path).name for path in data.X.sources[:11]] == [f"{number}.jpg" for number in range(11)]
    assert data.X.decode(0).mode == "RGB"
    assert len({data.X.decode(row).size for row in range(10)}) > 1
    assert [record.getMessage().split(":")[:2] for record in caplog.records] == [
        ["dogs_vs_cats", f" 2 of {2 * EACH + 2} files are empty or no JPEG, and are left out"]
    ]
    assert "666.jpg" in caplog.text


def test_what_is_downloaded_lies_where_the_spec_says(mirrored: Path, tmp_path: Path) -> None:
    Mnist(part="test", data_dir=str(tmp_path / "elsewhere")).prepare()

    assert not mirrored.exists()
    assert len(list((tmp_path / "elsewhere").rglob("*.gz"))) == 2


def test_what_is_there_needs_no_mirror_any_more(
    image_mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = tmp_path / "mirror"
    shutil.copytree(image_mirror, mirror)
    monkeypatch.setenv("GYMTRAIN_MIRROR", mirror.as_uri())
    monkeypatch.setenv("GYMTRAIN_DATA", str(tmp_path / "data"))
    DogsVsCats().prepare()
    shutil.rmtree(mirror)

    assert len(DogsVsCats().load().X) == 2 * EACH
    with pytest.raises(DownloadError, match=rf"{PETS}: there is no such file"):
        DogsVsCats(force_download=True).prepare()
    assert len(DogsVsCats().load().X) == 2 * EACH


def test_a_forced_download_takes_what_the_mirror_has_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GYMTRAIN_MIRROR", tmp_path.as_uri())
    monkeypatch.setenv("GYMTRAIN_DATA", str(tmp_path / "data"))
    for each in (2, 3):
        (tmp_path / PETS).write_bytes(pets(each))
        state_digest(tmp_path / PETS)
        assert len(DogsVsCats(force_download=True).load().X) == 2 * each
    assert len(DogsVsCats().load().X) == 6


def test_an_archive_of_something_else_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GYMTRAIN_MIRROR", tmp_path.as_uri())
    monkeypatch.setenv("GYMTRAIN_DATA", str(tmp_path / "data"))
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("README"))
    (tmp_path / PETS).write_bytes(file.getvalue())
    state_digest(tmp_path / PETS)

    with pytest.raises(DataError, match=r"PetImages/Cat: there are no photos; expected those of the archive"):
        DogsVsCats().load()


@pytest.mark.parametrize(("part", "rows"), [("all", SMALL * 3 // 2), ("train", SMALL), ("test", SMALL // 2)])
def test_mnist_gives_the_parts_of_its_publishers(mirrored: Path, part: Any, rows: int) -> None:
    data = Mnist(part=part).load()

    assert (data.X.shape, data.X.dtype, data.task) == ((rows, 28, 28), np.uint8, "multiclass")
    assert data.y.tolist() == ([*range(10)] * (SMALL // 10 + SMALL // 20))[:rows]
    assert (data.X[3, 8:10, 4:24] == 250).all()


def test_fashion_mnist_is_not_taken_for_mnist(mirrored: Path) -> None:
    digits, clothes = Mnist().load(), FashionMnist().load()

    assert clothes.y[:3].tolist() == ["T-shirt/top", "Trouser", "Pullover"]
    assert not np.array_equal(digits.X, clothes.X)


@pytest.mark.parametrize(("part", "rows"), [("all", SMALL * 3 // 2), ("train", SMALL), ("test", SMALL // 2)])
def test_cifar_has_its_colours_last(mirrored: Path, part: Any, rows: int) -> None:
    data = Cifar10(part=part).load()

    assert (data.X.shape, data.X.dtype, data.X.flags.c_contiguous) == ((rows, 32, 32, 3), np.uint8, True)
    assert data.X[4, 9, 17].tolist() == [4, 9, 17]
    assert data.y[:3].tolist() == ["airplane", "automobile", "bird"]


@pytest.mark.parametrize("damage", ["cut", "label", "missing"])
def test_a_damaged_file_of_cifar_is_named(mirrored: Path, damage: str) -> None:
    source = Cifar10()
    source.prepare()
    path = next(mirrored.rglob("data_batch_2.bin"))
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if damage == "cut" else b"\x0a" + content[1:])
    message = {
        "cut": r"has \d+ bytes; expected records of 3073",
        "label": "has the label 10",
        "missing": "is not there",
    }

    with pytest.raises(DataError, match=rf"data_batch_2\.bin: {message[damage]}"):
        source.load()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no gzip", r"is damaged: Not a gzipped file .*; force_download=True fetches it again"),
        (idx(np.zeros((2, 28, 28), np.uint8))[:-12], "is damaged: "),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x02ab"), r"begins with b'\\x00\\x00\\x08\\x01'; expected IDX, uint8 of 3"),
        (gzip.compress(b"\0\0\x08"), "begins with b'.*'; expected IDX"),
        (
            gzip.compress(b"\0\0\x08\x03" + b"\0\0\0\x02\0\0\0\x1c\0\0\0\x1c" + bytes(3)),
            r"has 1568 bytes .*, and has 3$",
        ),
        (
            gzip.compress(b"\0\0\x08\x03" + b"\0\0\0\x01\0\0\0\x01\0\0\0\x01" + bytes(3)),
            r"has 1 bytes .*, and has more$",
        ),
        (gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12), "larger than any that is known"),
    ],
)
def test_an_idx_file_that_is_damaged_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "images.gz").write_bytes(content)

    with pytest.raises(DataError, match=rf"images\.gz: .*{message}"):
        read_idx(tmp_path / "images.gz", 3)


def test_images_and_labels_that_do_not_fit_are_refused(mirrored: Path) -> None:
    source = Mnist(part="test")
    source.prepare()
    next(mirrored.rglob("t10k-labels*.gz")).write_bytes(idx(np.zeros(7, np.uint8)))

    with pytest.raises(
        DataError, match=r"t10k-images-idx3-ubyte\.gz: has the shape \(30, 28, 28\); expected \(7, 28, 28\)"
    ):
        source.load()


@pytest.mark.parametrize("name", ["dogs_vs_cats", "mnist", "fashion_mnist", "cifar10"])
def test_a_published_data_set_needs_no_argument_and_says_where_it_comes_from(name: str) -> None:
    source = find("dataset", name)

    assert DatasetSpec(dataset={"type": name}).dataset.arguments["data_dir"] is None
    assert source.downloads
    for download in source.downloads:
        assert all(place.startswith("http") and not place.endswith("/") for place in download.places)
        assert len(download.sha256) == 64
        assert download.size > 1000


def test_a_part_that_there_is_not_is_a_fault_of_the_spec() -> None:
    with pytest.raises(SpecError, match=r"dataset\.dataset\.part: got 'valid'; expected"):
        DatasetSpec(dataset={"type": "mnist", "part": "valid"})


# Folders.


def test_the_folders_are_the_classes_and_the_files_are_in_natural_order(photos: Path) -> None:
    hidden = ("dog/.hidden.png", "dog/.cache/1.png", "__MACOSX/._1.png", "dog/Thumbs.db")
    for name in ("cat/10.png", "cat/old/3.PNG", *hidden):
        (photos / name).parent.mkdir(exist_ok=True)
        shutil.copy(photos / "cat" / "1.png", photos / name)

    data = loaded(photos)

    assert names(data, photos) == ["cat/1.png", "cat/2.png", "cat/10.png", "cat/old/3.PNG", "dog/1.png", "dog/2.png"]
    assert data.y.tolist() == ["cat"] * 4 + ["dog"] * 2
    assert data.task == "binary"


def test_three_folders_are_three_classes(photos: Path) -> None:
    for number in range(2):
        picture(photos / "10 mice" / f"{number}.png")

    data = loaded(photos)

    assert (data.task, sorted(set(data.y.tolist()))) == ("multiclass", ["10 mice", "cat", "dog"])


def test_other_files_are_left_out_and_counted(photos: Path) -> None:
    for name in ("cat/notes.txt", "dog/1.jpg.part", "labels.csv"):
        (photos / name).touch()

    with pytest.warns(
        UserWarning, match=r"^3 files are left out, because no image ends so or it lies in no class: .*labels"
    ):
        data = loaded(photos)

    assert len(data.X) == 4


def test_a_class_with_one_image_is_warned_of(photos: Path) -> None:
    (photos / "dog" / "2.png").unlink()

    with pytest.warns(UserWarning, match=r"^there is one image only of 'dog'"):
        loaded(photos)


def test_an_empty_class_is_named(photos: Path) -> None:
    (photos / "horse").mkdir()
    (photos / "mouse").mkdir()
    (photos / "mouse" / "notes.txt").touch()

    with pytest.raises(
        DataError, match=r"photos: there is no image in the folders 'horse', 'mouse'; every class needs"
    ):
        loaded(photos)


@pytest.mark.parametrize(("first", "second"), [("Cat", "cat"), ("caf\u00e9", "cafe\u0301")])
def test_two_classes_that_look_alike_are_refused(photos: Path, first: str, second: str) -> None:
    for name in (first, second):
        picture(photos / name / "1.png")

    with pytest.raises(DataError, match=r"differ by upper and lower case or by how letters are encoded"):
        loaded(photos)


def test_folders_without_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"nowhere' is not there \(looked in .*\); expected a folder with a folder"
    ):
        loaded(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"1\.png' is a file; expected a folder"):
        loaded(picture(tmp_path / "flat" / "1.png"))
    with pytest.raises(DataError, match=r"flat: has 1 files and no folder; expected a folder for each class"):
        loaded(tmp_path / "flat")
    (tmp_path / "flat" / "cat").mkdir()
    with pytest.raises(
        DataError, match=r"flat: has the folders 'cat'; expected a folder for each class, and at least two"
    ):
        loaded(tmp_path / "flat")
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match=r"void: has nothing; expected a folder"):
        loaded(tmp_path / "void")


@pytest.mark.skipif(sys.platform == "win32", reason="names are Unicode there")
def test_a_folder_whose_name_is_no_text_is_refused(photos: Path) -> None:
    os.mkdir(os.fsencode(photos) + b"/\xff\xfe")

    with pytest.raises(DataError, match=r"the folder '\\udcff\\udcfe' has a name that is no text; rename it"):
        loaded(photos)


def test_links_that_lead_back_up_are_not_followed(photos: Path, tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere" / "9.png")
    (photos / "cat" / "up").symlink_to(photos)
    (photos / "cat" / "self").symlink_to(photos / "cat")
    (photos / "cat" / "round").symlink_to("round")
    (photos / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (photos / "cat" / "again").symlink_to(tmp_path / "elsewhere")
    (photos / "linked dogs").symlink_to(photos / "dog")

    with pytest.warns(UserWarning, match=r"^1 file is left out.*round"):
        data = loaded(photos)

    assert names(data, photos) == [
        "cat/1.png",
        "cat/2.png",
        "cat/again/9.png",
        "dog/1.png",
        "dog/2.png",
        "linked dogs/1.png",
        "linked dogs/2.png",
    ]


def test_a_file_that_is_no_image_inside_is_found_when_it_is_decoded(photos: Path) -> None:
    (photos / "cat" / "3.jpg").write_text("no image")

    data = loaded(photos)

    with pytest.raises(DataError, match=r"3\.jpg': is no image of a known format"):
        data.X.decode(2)


def test_a_long_list_of_other_files_is_cut(photos: Path) -> None:
    for number in range(50):
        (photos / "cat" / f"{number}.txt").touch()

    assert len(image_files(photos / "cat")[1]) == 50
    with pytest.warns(UserWarning, match=r"^50 files are left out.* and 45 more$"):
        loaded(photos)


# Tables of paths.


def table(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_table_names_the_images_and_their_labels(photos: Path) -> None:
    path = table(photos / "labels.csv", f"path,label,camera\ncat/1.png,cat,a\n{photos / 'dog' / '1.png'},dog,b\n")

    data = ImageCsv(str(path)).load()

    assert names(data, photos) == ["cat/1.png", "dog/1.png"]
    assert data.y.tolist() == ["cat", "dog"]
    assert data.X.decode(1).size == (8, 6)


def test_the_columns_and_the_root_can_be_named(photos: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "labels.csv", "file,price,weight,owner\n1.png,2.5,1,Ana\n2.png,3.5,2,Rui\n")

    data = ImageCsv(
        str(path),
        label_column="price",
        path_column="file",
        root=str(photos / "cat"),
        sample_weight="weight",
        groups="owner",
    ).load()

    assert names(data, photos) == ["cat/1.png", "cat/2.png"]
    assert data.y.tolist() == [2.5, 3.5]
    assert data.sample_weight.tolist() == [1.0, 2.0]
    assert data.groups == ["Ana", "Rui"]


def test_several_columns_are_several_outputs(photos: Path) -> None:
    path = table(photos / "labels.csv", "path,furry,wild\ncat/1.png,1,0\ndog/1.png,1,1\n")

    data = ImageCsv(str(path), label_column=["furry", "wild"], task="multilabel").load()

    assert data.y.tolist() == [[1, 0], [1, 1]]
    assert (data.task, data.target_names) == ("multilabel", ["furry", "wild"])


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (
            "path,label\na.png,x\nb.png,y\n",
            {},
            r"none of its 2 images is there, '.*a\.png', '.*b\.png'; relative paths start from",
        ),
        ("path,label\ncat,x\n", {}, r"none of its 1 images is there"),
        ("paht,label\ncat/1.png,x\n", {}, r"path_column: there is no column 'path'; did you mean 'paht'\?"),
        ("path,lable\ncat/1.png,x\n", {}, r"there is no column 'label'; did you mean 'lable'\?"),
        (
            "path,label\ncat/1.png,x\n",
            {"groups": "patient"},
            r"groups: there is no column 'patient'; the columns are 'path'",
        ),
        ("path,label\n,x\ncat/1.png,y\n", {}, r"row 0 has nothing in the column 'path'; expected a path"),
        ("path,label\n1,x\n2,y\n", {}, r"row 0 has 1\.0 in the column 'path'; expected a path"),
        ("path,label\ncat/1.png,x\n", {"label_column": "path"}, r"path_column: 'path' is the target or the weights"),
    ],
)
def test_a_table_that_does_not_lead_to_images_is_refused(
    photos: Path, text: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        ImageCsv(str(table(photos / "labels.csv", text)), **arguments).load()


def test_no_source_of_images_warns_of_what_is_well(photos: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        loaded(photos)

    assert caught == []


@pytest.mark.slow
def test_a_model_learns_digits_that_were_downloaded(mirrored: Path, tiny: Any) -> None:
    trainer = tiny(
        {"type": "mnist"},
        "mlp",
        {"epochs": 10},
        samples={"train": SMALL, "test": SMALL // 2},
        preprocessors=[{"type": "divide", "factor": 255.0}],
        shuffle=False,
    )

    result = trainer.train()

    assert result["elapsed"]["download_and_prepare_data"] > 0
    assert result["metrics"]["test/accuracy"] == 1.0
    assert trainer.predict(Mnist(part="test").load().X[:3]).tolist() == [0, 1, 2]


@pytest.mark.slow
def test_a_model_learns_to_tell_cats_from_dogs_that_were_downloaded(mirrored: Path, tiny: Any) -> None:
    trainer = tiny(
        {"type": "dogs_vs_cats"},
        "cnn",
        {"epochs": 6},
        samples={"train": 0.8, "test": 0.2},
        preprocessors=[{"type": "image_resize", "width": 32, "height": 32}, {"type": "divide", "factor": 255.0}],
    )

    result = trainer.train()

    assert result["metrics"]["test/accuracy"] > 0.8
    photo = next(mirrored.rglob("Dog/7.jpg"))
    np.testing.assert_array_equal(trainer.predict([str(photo)]), trainer.predict([photo.read_bytes()]))
