"""Archives of images as publishers have them, of the same structure and a fraction of the size, made on the fly.

`image_mirror` in conftest.py is a directory with all of them, and `mirrored` makes it the place they come from.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw

PETS = "kagglecatsanddogs_5340.zip"
EACH = 150
"""How many photos of cats there are, and how many of dogs."""
SMALL = 60
"""How many small images are in a train part; a test part has half as many."""


def make_mirror(folder: Path) -> Path:
    """Write the archives of all published data sets, each with its SHA-256 beside it."""
    (folder / "fashion-mnist").mkdir()
    (folder / PETS).write_bytes(pets())
    (folder / "cifar-10-binary.tar.gz").write_bytes(cifar())
    for place in (folder, folder / "fashion-mnist"):
        for name, content in idx_files(seed=len(place.name)).items():
            (place / name).write_bytes(content)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        state_digest(path)
    return folder


def state_digest(path: Path) -> None:
    """Write the SHA-256 of a file beside it, as sha256sum does."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(f"{path.name}.sha256").write_text(f"{digest}  {path.name}\n")


def pets(each: int = EACH, seed: int = 0) -> bytes:
    """Return an archive of photos: cats are rings, dogs are squares, and two files are no photos, as in the real."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme[1].txt", "Asirra")
        for name in ("Cat", "Dog"):
            random = np.random.default_rng([seed, len(name), ord(name[0])])
            for number in range(each):
                archive.writestr(f"PetImages/{name}/{number}.jpg", jpeg(name == "Cat", random))
            archive.writestr(f"PetImages/{name}/Thumbs.db", b"\xd0\xcf\x11\xe0")
        archive.writestr("PetImages/Cat/666.jpg", b"")
        archive.writestr("PetImages/Dog/11702.jpg", b"GIF89a, or something like it")
    return file.getvalue()


def jpeg(rings: bool, random: np.random.Generator) -> bytes:
    """Return a photo of 80 to 200 pixels: rings or a square, of some size and colour at some place, on noise."""
    width, height = random.integers(80, 200, 2).tolist()
    noise = random.integers(0, 90, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    image = PIL.Image.fromarray(noise).resize((width, height))
    size = int(min(width, height) * random.uniform(0.5, 0.8))
    left, top = int(random.integers(0, width - size)), int(random.integers(0, height - size))
    colour = tuple(random.integers(140, 256, 3).tolist())
    pen = PIL.ImageDraw.Draw(image)
    if rings:
        thick = size // 10
        for inset in range(0, size // 2, 2 * thick):
            pen.ellipse(
                (left + inset, top + inset, left + size - inset, top + size - inset), outline=colour, width=thick
            )
    else:
        pen.rectangle((left, top, left + size, top + size), fill=colour)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()


def idx(values: np.ndarray) -> bytes:
    """Return an array of uint8 as IDX, compressed with gzip."""
    head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return gzip.compress(head + values.tobytes(), mtime=0)


def idx_files(seed: int = 0) -> dict[str, bytes]:
    """Return the four files of MNIST: in each image a bright bar, as far down as its label says."""
    random = np.random.default_rng(seed)
    files = {}
    for name, rows in (("train", SMALL), ("t10k", SMALL // 2)):
        labels = (np.arange(rows) % 10).astype(np.uint8)
        images = random.integers(0, 60, (rows, 28, 28), np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label + 2 : 2 * label + 4, 4:24] = 250
        files[f"{name}-images-idx3-ubyte.gz"] = idx(images)
        files[f"{name}-labels-idx1-ubyte.gz"] = idx(labels)
    return files


def cifar() -> bytes:
    """Return the binary archive of CIFAR-10: in each photo red is the label, green the row and blue the column."""
    file = io.BytesIO()
    rows, columns = np.mgrid[0:32, 0:32].astype(np.uint8)
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for number, name in enumerate(["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"]):
            _add(archive, f"{name}.bin", _records(range(number, number + SMALL // 5), rows, columns))
        _add(archive, "test_batch.bin", _records(range(SMALL // 2), rows, columns))
        _add(archive, "batches.meta.txt", b"airplane\nautomobile\n")
    return file.getvalue()


def _records(numbers: range, rows: np.ndarray, columns: np.ndarray) -> bytes:
    records = [
        bytes([number % 10]) + np.full((32, 32), number % 10, np.uint8).tobytes() + rows.tobytes() + columns.tobytes()
        for number in numbers
    ]
    return b"".join(records)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))
