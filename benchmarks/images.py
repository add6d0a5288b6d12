"""The pipeline of the example for dogs and cats, in images per second: JPEG files, resize, augmentation, network.

Contenders: gymtrain from the files, in its first epoch (decoding included) and in the others; gymtrain from pixels that
are in memory already; a DataLoader by hand whose workers decode, resize and augment with Pillow; and one whose workers
decode and resize, with kornia augmenting the batch on the device, one augmentor after the other. All of them train the
same network, batch by batch; the data alone is measured too, without a network.

`--device cuda` runs it on a GPU. The augmentors alone are in `augmentors.py`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import torch
from _measure import arguments_parser, header, interleaved, ratios, spread_text, table
from torch import nn
from torch.utils.data import DataLoader, Dataset

from gymtrain import Callback, Trainer
from gymtrain.data.augmentors import Augmentation
from gymtrain.data.decoding import Decoder, ImageArray
from gymtrain.data.image_preprocessors import ImageResize
from gymtrain.data.images import Images
from gymtrain.data.randomness import order
from gymtrain.models.networks.convolutional import cnn, dogs_vs_cats_cnn
from gymtrain.registry import find
from gymtrain.training.batches import Batches

SIDE, BATCH = 100, 32
AUGMENTORS: list[dict[str, Any]] = [
    {"type": "flip", "probability": 0.5},
    {"type": "rotate_range", "probability": 0.5, "max_left_rotation": 10, "max_right_rotation": 10},
    {"type": "random_brightness", "probability": 0.5, "min_factor": 0.7, "max_factor": 1.3},
    {"type": "random_contrast", "probability": 0.5, "min_factor": 0.7, "max_factor": 1.3},
    {"type": "random_color", "probability": 0.4, "min_factor": 0.2, "max_factor": 0.7},
]
NETWORKS: dict[str, tuple[dict[str, Any], Callable[..., nn.Module]]] = {
    "dogs_vs_cats_cnn": ({"type": "dogs_vs_cats_cnn"}, dogs_vs_cats_cnn),
    "cnn, 8 and 16 channels": ({"type": "cnn", "channels": [8, 16]}, partial(cnn, channels=[8, 16])),
}


def photos(folder: Path, count: int) -> list[Path]:
    """Write JPEGs of 300 to 500 pixels that are as hard to decode as photos: smooth noise of several sizes."""
    files = []
    for number in range(count):
        random = np.random.default_rng(number)
        width, height = random.integers(300, 501, 2).tolist()
        total = np.zeros((height, width, 3), np.float32)
        for cells in (4, 16, 64, 200):
            noise = random.integers(0, 256, (cells, cells, 3), np.uint8)
            layer = PIL.Image.fromarray(noise).resize((width, height), PIL.Image.Resampling.BICUBIC)
            total += np.asarray(layer, np.float32)
        path = folder / ("cat", "dog")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray((total / 4).astype(np.uint8)).save(path, quality=85)
        files.append(path)
    return sorted(files)


class Epochs(Callback):
    """Notes when training began and when each epoch was over."""

    def on_load_data_begin(self, state: Any) -> None:
        self.times = [perf_counter()]

    def on_epoch_begin(self, state: Any) -> None:
        if len(self.times) == 1:
            self.began = perf_counter()

    def on_epoch_end(self, state: Any) -> None:
        self.times.append(perf_counter())


def with_gymtrain(
    dataset: dict[str, Any], resize: bool, model: dict[str, Any], epochs: int, device: str
) -> list[float]:
    """Train, and return the seconds of each epoch; the first begins with the loading of the data."""
    watch = Epochs()
    with tempfile.TemporaryDirectory() as root:
        trainer = Trainer(
            dataset={
                "dataset": dataset,
                "samples": {"train": 1.0},
                "preprocessors": [{"type": "image_resize", "width": SIDE, "height": SIDE}] if resize else [],
                "data_augmentors": AUGMENTORS,
            },
            model={
                "model": model,
                "training": {
                    "epochs": epochs,
                    "batch_size": BATCH,
                    "optimizer": "Adam",
                    "device": device,
                    "loss": "auto",
                },
            },
            tracking={"root": root, "trackers": [], "log_every_n_steps": 0},
        )
        trainer.train(callbacks=[watch])
    return np.diff(watch.times).tolist()


class Photos(Dataset[tuple[torch.Tensor, int]]):
    """What people write: each photo is opened, resized and changed with Pillow when it is asked for."""

    def __init__(self, files: list[Path], augment: bool) -> None:
        self.files, self.augment = files, augment

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path = self.files[index]
        image = PIL.Image.open(path).convert("RGB").resize((SIDE, SIDE), PIL.Image.Resampling.BILINEAR)
        if self.augment:
            image = changed_with_pillow(image)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1), int(path.parent.name == "dog")


def changed_with_pillow(image: PIL.Image.Image) -> PIL.Image.Image:
    draws = torch.rand(9).tolist()
    if draws[0] < 0.5:
        image = image.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
    if draws[1] < 0.5:
        image = image.rotate(20 * draws[2] - 10, PIL.Image.Resampling.BILINEAR)
    for position, (kind, share, low, high) in enumerate(
        [
            (PIL.ImageEnhance.Brightness, 0.5, 0.7, 1.3),
            (PIL.ImageEnhance.Contrast, 0.5, 0.7, 1.3),
            (PIL.ImageEnhance.Color, 0.4, 0.2, 0.7),
        ]
    ):
        if draws[3 + 2 * position] < share:
            image = kind(image).enhance(low + draws[4 + 2 * position] * (high - low))
    return image


def changed_with_kornia() -> Callable[[torch.Tensor], torch.Tensor]:
    from kornia import augmentation as kornia

    chain = nn.Sequential(
        kornia.RandomHorizontalFlip(p=0.5),
        kornia.RandomRotation(10.0, p=0.5),
        kornia.RandomBrightness((0.7, 1.3), p=0.5),
        kornia.RandomContrast((0.7, 1.3), p=0.5),
        kornia.RandomSaturation((0.2, 0.7), p=0.4),
    )
    return lambda images: chain(images / 255) * 255


def by_hand(
    files: list[Path], kornia: bool, network: Callable[..., nn.Module], epochs: int, device: str, workers: int
) -> list[float]:
    """Train with a DataLoader and a loop of one's own, and return the seconds of each epoch."""
    began = perf_counter()
    loader = DataLoader(
        Photos(files, augment=not kornia),
        batch_size=BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device == "cuda",
    )
    change = changed_with_kornia() if kornia else None
    torch.manual_seed(0)
    model = network(input_shape=(SIDE, SIDE, 3), output_size=2).to(device)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    loss_of = nn.CrossEntropyLoss()
    seconds = []
    for _ in range(epochs):
        total = torch.zeros((), device=device)
        for images, labels in loader:
            batch = images.to(device, non_blocking=True).float()
            batch = (batch if change is None else change(batch)).permute(0, 2, 3, 1)
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(model(batch), labels.to(device, non_blocking=True))
            loss.backward()
            optimizer.step()
            total += loss.detach()
        total.item()
        seconds.append(perf_counter() - began)
        began = perf_counter()
    return seconds


def data_alone(batches: Iterator[Any], count: int, device: str) -> float:
    """Return the seconds that so many batches take when nothing is learned from them."""
    began = perf_counter()
    for _ in range(count):
        next(batches)
    if device == "cuda":
        torch.cuda.synchronize()
    return perf_counter() - began


def our_batches(source: Any, device: str) -> Batches:
    images = ImageArray(source)
    augmentors = [
        find("augmentor", each["type"])(**{k: v for k, v in each.items() if k != "type"}) for each in AUGMENTORS
    ]
    return Batches(
        images,
        torch.zeros(len(images), dtype=torch.int64),
        partial(order, 0, size=len(images), shuffle=True),
        batch_size=BATCH,
        device=torch.device(device),
        augmentation=Augmentation(augmentors, seed=0, pixel_range=(0.0, 255.0)),
        finish=lambda pixels: pixels.float(),
    )


def compare_data(files: list[Path], rounds: int, device: str, workers: int) -> list[list[str]]:
    decoder = Decoder(Images(files), [ImageResize(SIDE, SIDE)])
    cached, anew = our_batches(decoder[:], device).stream(0), our_batches(decoder, device).stream(0)
    per_epoch = -(-len(files) // BATCH)

    def loaded(kornia: bool) -> Callable[[], float]:
        loader = DataLoader(
            Photos(files, not kornia), BATCH, shuffle=True, num_workers=workers, persistent_workers=True
        )
        change = changed_with_kornia() if kornia else None

        def batches() -> Iterator[Any]:
            for images, _ in loader:
                batch = images.to(device, non_blocking=True).float()
                yield batch if change is None else change(batch)

        return lambda: data_alone(batches(), per_epoch, device)

    seconds = interleaved(
        {
            "gymtrain, decoded before": lambda: data_alone(cached, per_epoch, device),
            "gymtrain, decoded at each look": lambda: data_alone(anew, per_epoch, device),
            "DataLoader with Pillow": loaded(False),
            "DataLoader with kornia": loaded(True),
        },
        rounds,
    )
    own = seconds["DataLoader with Pillow"]
    return [
        [name, f"{len(files) / sorted(spent)[len(spent) // 2]:.0f}", *spread_text(ratios(own, spent), 2)]
        for name, spent in seconds.items()
    ]


def compare_training(
    files: list[Path], pixels: np.ndarray[Any, Any], network: str, rounds: int, epochs: int, device: str, workers: int
) -> list[list[str]]:
    model, build = NETWORKS[network]
    labels = [file.parent.name for file in files]
    folder = {"type": "image_folder", "path": str(files[0].parents[1])}
    arrays = {"type": "arrays", "X": pixels, "y": np.array(labels)}
    first: dict[str, list[float]] = {}

    def later(name: str, train: Callable[[], list[float]]) -> float:
        seconds = train()
        first.setdefault(name, []).append(seconds[0])
        return sum(seconds[1:]) / (len(seconds) - 1)

    def from_files() -> list[float]:
        with tempfile.TemporaryDirectory() as home:
            os.environ["GYMTRAIN_DATA"] = home
            return with_gymtrain(folder, True, model, epochs, device)

    contenders = {
        "gymtrain, from files": from_files,
        "gymtrain, from pixels in memory": lambda: with_gymtrain(arrays, False, model, epochs, device),
        "DataLoader with Pillow": lambda: by_hand(files, False, build, epochs, device, workers),
        "DataLoader with kornia": lambda: by_hand(files, True, build, epochs, device, workers),
    }
    seconds = interleaved({name: partial(later, name, train) for name, train in contenders.items()}, rounds)
    reference = seconds["gymtrain, from pixels in memory"]

    def per_second(spent: list[float]) -> str:
        return f"{len(files) / sorted(spent)[len(spent) // 2]:.0f}"

    return [
        [
            f"{network}: {name}",
            per_second(first[name][1:]),
            per_second(spent),
            *spread_text(ratios(reference, spent), 2),
        ]
        for name, spent in seconds.items()
    ]


def main() -> None:
    parser = arguments_parser("Images from files to a network.", rounds=5)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--count", type=int, default=512, help="how many files")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    count, epochs, rounds = (64, 2, 1) if options.quick else (options.count, options.epochs, options.rounds)
    workers = min(len(os.sched_getaffinity(0)), 16)
    print(header("gymtrain", "torch", "pillow", "kornia", rounds=rounds, threads=options.threads))
    print(f"- {count} files of 300 to 500 pixels, resized to {SIDE}, in batches of {BATCH}")
    print(f"- {options.device}; DataLoaders with {workers} workers", end="\n\n")
    with tempfile.TemporaryDirectory() as folder:
        files = photos(Path(folder), count)
        pixels = Decoder(Images(files), [ImageResize(SIDE, SIDE)])[:]
        rows = compare_data(files, rounds, options.device, workers)
        print(table(["data alone", "images/s", "speed / DataLoader with Pillow", "range"], rows), end="\n\n")
        rows = [
            row
            for network in NETWORKS
            for row in compare_training(files, pixels, network, rounds, epochs, options.device, workers)
        ]
        columns = ["training", "images/s, first epoch", "images/s, later", "later / from pixels in memory", "range"]
        print(table(columns, rows))


if __name__ == "__main__":
    main()
