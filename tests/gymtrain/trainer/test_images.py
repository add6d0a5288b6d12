from __future__ import annotations

import io
import json
import resource
import warnings
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from bundle_forge import take_apart
from drawn_images import drawn, encoded, folder_of_images

from gymtrain import Callback, Trainer
from gymtrain.data.augmentors import Augmentation, Flip, RandomColor, Rotate
from gymtrain.data.decoding import Decoder, ImageArray
from gymtrain.data.image_preprocessors import ImageResize
from gymtrain.data.images import Images
from gymtrain.data.randomness import order
from gymtrain.data.sources import Data
from gymtrain.errors import DataError, InputError
from gymtrain.training.batches import Batches


class Shapes:
    """The images of a folder, with a class for each folder in it; with the paths as `drop` leaves them."""

    def __init__(self, path: str, times: int = 1) -> None:
        self.path, self.times = path, times

    def load(self) -> Data:
        files = sorted(Path(self.path).rglob("*.jpg")) * self.times
        return Data(Images(files), [file.parent.name for file in files], groups=[file.name for file in files])


RESIZE = {"type": "image_resize", "width": 16, "height": 16}


def trainer_of(folder: Path, root: Path, *, training=None, model=None, **dataset) -> Trainer:
    return Trainer(
        dataset={
            "dataset": {"type": Shapes, "path": str(folder)},
            "samples": {"train": 0.6, "val": 0.2, "test": 0.2},
            "preprocessors": [RESIZE, {"type": "divide"}, {"type": "normalize"}],
            **dataset,
        },
        model={
            "model": model or {"type": "cnn", "channels": [8, 8]},
            "training": {"epochs": 2, "batch_size": 8, **(training or {})},
        },
        tracking={"root": str(root), "trackers": []},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return folder_of_images(tmp_path_factory.mktemp("images"), 60)


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory) -> Trainer:
    trainer = trainer_of(folder, tmp_path_factory.mktemp("runs"))
    trainer.train()
    return trainer


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.jpg"))


@pytest.mark.slow
def test_shapes_are_told_apart(tmp_path):
    folder = folder_of_images(tmp_path / "images", 300)
    trainer = trainer_of(
        folder,
        tmp_path,
        training={"epochs": 12, "optimizer": {"type": "adam", "lr": 0.005}},
        data_augmentors=[{"type": "flip"}],
    )

    result = trainer.train()

    assert result["metrics"]["test/accuracy"] > 0.85


def test_digits_as_images_are_learned(tmp_path):
    trainer = Trainer(
        dataset={
            "dataset": {"type": "digits", "images": True},
            "preprocessors": [{"type": "image_resize", "width": 10, "height": 10}, {"type": "divide", "factor": 16.0}],
            "data_augmentors": [{"type": "rotate", "probability": 0.2}],
        },
        model={"model": {"type": "cnn", "channels": [8, 16]}, "training": {"epochs": 6}},
        tracking={"root": str(tmp_path), "trackers": []},
    )

    result = trainer.train()

    assert result["metrics"]["test/accuracy"] > 0.8


def test_what_is_measured_in_training_is_what_predictions_from_the_files_give(trained, folder):
    data = trained.result["data"]["test"]
    rows = _rows(trained, folder, "test")

    accuracy = np.mean([trained.predict(path)[0] == path.parent.name for path in rows])

    assert data["rows"] == len(rows) == 12
    assert accuracy == pytest.approx(trained.result["metrics"]["test/accuracy"])


def _rows(trainer: Trainer, folder: Path, part: str) -> list[Path]:
    from gymtrain.data.splits import split

    spec = trainer.to_dict()["dataset"]
    from gymtrain import Dataset

    samples = Dataset(dataset={"type": "digits"}, samples=spec["samples"]).samples
    rows = split(samples, 60, seed=0, shuffle=True, validation_split=0.0)
    return [files_of(folder)[row] for row in rows[part]]


def test_a_bundle_predicts_files_with_the_same_bits_and_verifies_itself(trained, folder, tmp_path):
    trained.save(tmp_path / "shapes.zip")

    loaded = Trainer.load(tmp_path / "shapes.zip")

    files = files_of(folder)
    assert np.array_equal(loaded.predict_proba(files), trained.predict_proba(files))
    assert loaded.verify()["verdict"] == "same bits"
    loaded.save(tmp_path / "again.zip")
    assert Trainer.load(tmp_path / "again.zip").verify()["rows"] == 8


def test_files_give_the_same_bits_alone_and_together(trained, folder):
    files = files_of(folder)[:12]

    together = trained.predict_proba(files)

    assert np.array_equal(together, np.concatenate([trained.predict_proba(file) for file in files]))


def test_a_bundle_of_images_whose_files_are_gone_is_saved_with_what_was_there(folder, tmp_path):
    copied = folder_of_images(tmp_path / "images", 20)
    trainer = trainer_of(copied, tmp_path)
    trainer.train()
    for file in files_of(copied):
        file.unlink()

    trainer.save(tmp_path / "x.zip")

    assert Trainer.load(tmp_path / "x.zip").verify()["verdict"] == "same bits"


def test_decoding_at_each_look_trains_to_the_same_bits_as_the_cache(trained, folder, tmp_path):
    trainer = trainer_of(folder, tmp_path, image_cache_gb=0)

    result = trainer.train()

    assert result["metrics"] == trained.result["metrics"]
    assert result["data"] == trained.result["data"]
    assert np.array_equal(trainer.predict_proba(files_of(folder)), trained.predict_proba(files_of(folder)))


@pytest.mark.slow
def test_workers_that_decode_train_to_the_same_bits(trained, folder, tmp_path):
    trainer = trainer_of(folder, tmp_path, image_cache_gb=0, training={"workers": 2})

    assert trainer.train()["metrics"] == trained.result["metrics"]


AUGMENTATION = Augmentation([Flip(), Rotate(probability=0.8), RandomColor(probability=0.7)], seed=3)


def batches_from(source, workers: int, first: int, count: int) -> list[np.ndarray]:
    images = ImageArray(source)
    batches = Batches(
        images,
        torch.arange(len(images)),
        partial(order, 3, size=len(images), shuffle=True),
        batch_size=7,
        device=torch.device("cpu"),
        augmentation=AUGMENTATION,
        finish=lambda pixels: pixels.float() / 255,
        workers=workers,
    )
    try:
        return [batch.inputs.clone().numpy() for batch in islice(batches.stream(first), count)]
    finally:
        batches.close()


def test_augmented_batches_are_the_same_for_any_workers_and_after_two_resumes(folder):
    decoder = Decoder(Images(files_of(folder)), [ImageResize(16, 16)])
    cached = decoder[:]

    whole = batches_from(cached, 0, 0, 14)

    for parts in (
        batches_from(cached, 0, 0, 5) + batches_from(cached, 0, 5, 6) + batches_from(cached, 0, 11, 3),
        batches_from(cached, 1, 0, 14),
        batches_from(decoder, 2, 0, 5) + batches_from(cached, 2, 5, 6) + batches_from(decoder, 0, 11, 3),
    ):
        assert len(parts) == 14
        assert all(np.array_equal(one, other) for one, other in zip(whole, parts, strict=True))
    assert any(not np.array_equal(one, other) for one, other in zip(whole[:5], whole[9:], strict=True))


class StopAfter(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, state) -> None:
        if state.step == self.step:
            raise KeyboardInterrupt


def test_a_training_on_images_that_is_resumed_twice_ends_with_the_same_bits(folder, tmp_path):
    augmentors = [{"type": "flip"}, {"type": "random_color"}]
    options = {"data_augmentors": augmentors, "training": {"checkpoint": {"every_steps": 1}}}
    whole = trainer_of(folder, tmp_path / "whole", **options)
    whole.train()

    for step in (2, 6):
        parts = trainer_of(folder, tmp_path / "parts", **options)
        with pytest.raises(KeyboardInterrupt):
            parts.train(callbacks=[StopAfter(step)], resume="auto")
    parts = trainer_of(folder, tmp_path / "parts", **options)
    result = parts.train(resume="auto")

    assert result["metrics"] == whole.result["metrics"]
    assert np.array_equal(parts.predict_proba(files_of(folder)), whole.predict_proba(files_of(folder)))


def broken(tmp_path: Path, rows: int = 20) -> Path:
    folder = folder_of_images(tmp_path / "images", rows)
    (folder / "circle" / "empty.jpg").write_bytes(b"")
    whole = (folder / "square" / "001.jpg").read_bytes()
    (folder / "square" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    return folder


def test_images_that_cannot_be_decoded_end_the_training_before_it_begins(tmp_path):
    trainer = trainer_of(broken(tmp_path), tmp_path)

    message = (
        r"dataset.dataset: 2 of 22 images cannot be decoded: '.*circle/empty.jpg': is empty \(0 bytes\); "
        r"'.*square/cut.jpg': cannot be decoded: .*truncated.*; remove them or get them anew, or train without them by "
        r"dataset.on_bad_sample: 'skip'"
    )
    with pytest.raises(DataError, match=message):
        trainer.train()


@pytest.mark.parametrize("gigabytes", [1.0, 0.0])
def test_images_that_cannot_be_decoded_are_left_out_and_counted(tmp_path, gigabytes):
    folder = broken(tmp_path)
    trainer = trainer_of(folder, tmp_path, on_bad_sample="skip", image_cache_gb=gigabytes)

    with pytest.warns(UserWarning, match=r"2 of 22 images cannot be decoded: .*empty.jpg.*cut.jpg.*; left out"):
        result = trainer.train()

    assert sum(result["data"][part]["rows"] for part in ("train", "val", "test")) == 20


def test_no_image_that_can_be_decoded_is_an_error_also_where_bad_ones_may_be_skipped(tmp_path):
    folder = tmp_path / "images"
    for kind in ("circle", "square"):
        (folder / kind).mkdir(parents=True)
        (folder / kind / "a.jpg").write_bytes(b"nothing")

    with pytest.raises(DataError, match="none of 2 images can be decoded"):
        trainer_of(folder, tmp_path, on_bad_sample="skip").train()


def test_a_file_that_vanishes_while_training_does_no_harm_where_images_are_cached(tmp_path):
    folder = folder_of_images(tmp_path / "images", 20)

    class Removal(Callback):
        def on_fit_model_begin(self, state) -> None:
            for file in files_of(folder):
                file.unlink()

    result = trainer_of(folder, tmp_path).train(callbacks=[Removal()])

    assert result["status"] == "FINISHED"


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_file_that_vanishes_while_training_is_an_error_with_its_path(tmp_path, workers):
    folder = folder_of_images(tmp_path / "images", 20)

    class Removal(Callback):
        def on_epoch_begin(self, state) -> None:
            if state.epoch == 2:
                for file in files_of(folder):
                    file.unlink()

    trainer = trainer_of(folder, tmp_path, image_cache_gb=0, training={"epochs": 3, "workers": workers})

    with pytest.raises(DataError, match=r"\.jpg': there is no such file"):
        trainer.train(callbacks=[Removal()])


def test_images_of_different_sizes_need_a_resize(tmp_path):
    trainer = trainer_of(folder_of_images(tmp_path / "images", 8), tmp_path, preprocessors=[{"type": "divide"}])

    with pytest.raises(
        DataError, match=r"images differ in size: .*put .*'image_resize'.* first among the preprocessors"
    ):
        trainer.train()


def test_a_limit_of_pixels_holds_in_training_and_in_a_bundle(folder, tmp_path):
    with pytest.raises(DataError, match=r"none of 60 images can be decoded: .* more than the 1,000 that"):
        trainer_of(folder, tmp_path, max_image_pixels=1000).train()
    trainer = trainer_of(folder, tmp_path, max_image_pixels=2500)
    trainer.train()
    trainer.save(tmp_path / "x.zip")

    with pytest.raises(InputError, match="has 60 x 60 pixels, more than the 2,500"):
        Trainer.load(tmp_path / "x.zip").predict([drawn("circle", 0), encoded(PIL.Image.new("RGB", (60, 60)), "PNG")])


def test_groups_and_classes_follow_the_images_that_are_left(tmp_path):
    trainer = trainer_of(
        broken(tmp_path), tmp_path, on_bad_sample="skip", samples={"train": 0.5, "test": 0.5, "group_by": "groups"}
    )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = trainer.train()

    assert {
        name: sum(result["data"][part]["classes"][name] for part in ("train", "test")) for name in ("circle", "square")
    } == {
        "circle": 10,
        "square": 10,
    }


def test_a_preprocessor_that_is_fitted_on_numbers_takes_images_too(folder, tmp_path):
    trainer = trainer_of(
        folder,
        tmp_path,
        preprocessors=[RESIZE, {"type": "grayscale"}, {"type": "standard_scaler"}],
        model={"type": "mlp"},
    )

    result = trainer.train()

    assert result["status"] == "FINISHED"
    assert len(trainer.predict(files_of(folder))) == 60


def test_a_model_of_scikit_learn_takes_images_as_numbers(folder, tmp_path):
    model = {"type": "sklearn", "estimator": "LogisticRegression", "max_iter": 2000}
    trainer = trainer_of(
        folder, tmp_path, model=model, preprocessors=[RESIZE, {"type": "divide"}], training={"epochs": 1}
    )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train()
    trainer.save(tmp_path / "x.zip")

    files = files_of(folder)
    assert np.array_equal(Trainer.load(tmp_path / "x.zip").predict_proba(files), trainer.predict_proba(files))


def test_arrays_of_pixels_stay_bytes_and_predict_what_they_are_measured_at(tmp_path):
    X = np.stack([np.asarray(drawn(("circle", "square")[row % 2], row, (16, 16))) for row in range(60)])
    y = np.array(["circle", "square"])[np.arange(60) % 2]
    trainer = Trainer(
        dataset={
            "dataset": {"type": "arrays", "X": X, "y": y},
            "preprocessors": [{"type": "divide"}],
            "shuffle": False,
        },
        model={"model": {"type": "cnn", "channels": [8]}, "training": {"epochs": 2, "batch_size": 8}},
        tracking={"root": str(tmp_path), "trackers": []},
    )

    result = trainer.train()

    assert trainer.features.dtype == "uint8"
    assert result["metrics"]["test/accuracy"] == pytest.approx(np.mean(trainer.predict(X[48:]) == y[48:]))
    assert np.array_equal(trainer.predict(X[:5].astype(np.float64)), trainer.predict(X[:5]))
    with pytest.raises(InputError, match=r"got numbers from 0 to 0.99.*; the model was trained on pixels"):
        trainer.predict(X[:5] / 255)


def test_a_bundle_holds_small_images_without_what_a_camera_notes(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x010F] = "the maker of the camera"
    folder = folder_of_images(tmp_path / "images", 20)
    for file in files_of(folder):
        PIL.Image.open(file).resize((1500, 1000)).save(file, exif=exif)
    trainer = trainer_of(folder, tmp_path)
    trainer.train()

    trainer.save(tmp_path / "x.zip")

    assert b"the maker of the camera" not in (tmp_path / "x.zip").read_bytes()
    loaded = Trainer.load(tmp_path / "x.zip")
    assert loaded.verify()["verdict"] == "same bits"
    assert all(max(PIL.Image.open(io.BytesIO(file)).size) <= 512 for file in loaded._predictor.examples.sources)


def test_a_bundle_that_asks_for_enormous_images_is_opened_without_making_one(trained, tmp_path):
    trained.save(tmp_path / "x.zip")
    forge = take_apart((tmp_path / "x.zip").read_bytes())
    spec = json.loads(forge.part("spec.json").content)
    spec["dataset"]["preprocessors"][0].update(width=16384, height=16384)
    (tmp_path / "x.zip").write_bytes(forge.replace("spec.json", json.dumps(spec).encode()).pack())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    Trainer.load(tmp_path / "x.zip")

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


def test_how_much_room_there_is_for_images_may_change_before_a_resume(folder, tmp_path):
    options = {"training": {"checkpoint": {"every_steps": 1}}}
    parts = trainer_of(folder, tmp_path, **options)
    with pytest.raises(KeyboardInterrupt):
        parts.train(callbacks=[StopAfter(6)], resume="auto")

    again = trainer_of(folder, tmp_path, image_cache_gb=0, **options)
    result = again.train(resume="auto")

    assert "step-000000006" in result["resumed_from"]


@pytest.mark.parametrize("kind", ["skip", "raise"])
def test_files_of_a_table_that_are_missing_are_bad_samples_like_others(folder, tmp_path, kind):
    lines = [f"{file},{file.parent.name}" for file in files_of(folder)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *lines, "nowhere.jpg,circle"]) + "\n")
    dataset = {"type": "image_csv", "path": str(tmp_path / "labels.csv")}
    trainer = trainer_of(folder, tmp_path, dataset=dataset, on_bad_sample=kind)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "raise":
            with pytest.raises(DataError, match=r"1 of 61 images cannot be decoded: '.*nowhere.jpg': there is no such"):
                trainer.train()
        else:
            assert trainer.train()["bad_samples"]["count"] == 1
