"""A bundle as the folder that a repository on the Hub of Hugging Face is made of."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from gymtrain.bundle import Bundle, open_bundle
from gymtrain.errors import BundleError

# What the Hub and its libraries look for under a name of their own.
RENAMED = {"spec.json": "config.json", "weights.safetensors": "model.safetensors"}
LEFT_OUT = ("manifest.json", "README.md", "selfcheck.safetensors", "training/")
BUNDLE = "model.zip"


def export_to_hub_folder(directory: str | os.PathLike[str], save: Callable[[Path], object]) -> None:
    """Make a folder that `huggingface_hub.upload_folder` takes as it is; all of it is there, or nothing.

    In it are the bundle, its members as files of their own, under the names that the Hub looks for, and a model card
    that begins with what the Hub shows and searches: task, tags and results.

    Args:
        directory: The folder, which must not exist yet or be empty; the directory that it lies in must exist.
        save: Writes the bundle to a path.

    Raises:
        BundleError: What `save` wrote is no bundle that can be trusted.
        OSError: There is something in the folder, or it cannot be written.
    """
    with _whole_folder(Path(directory)) as folder:
        save(folder / BUNDLE)
        # Verified, the zip has one reading: the other reader sees the same members.
        with open_bundle(folder / BUNDLE) as bundle, zipfile.ZipFile(folder / BUNDLE) as archive:
            for name in bundle.manifest["members"]:
                if not name.startswith(LEFT_OUT):
                    place = folder / RENAMED.get(name, name)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(name) as member, open(place, "xb") as file:
                        shutil.copyfileobj(member, file)
            try:
                card = _card(bundle)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                message = f"{directory}: the members do not fit together: {type(error).__name__}: {error}"
                raise BundleError(message, reason="inconsistent") from error
            (folder / "README.md").write_text(card, encoding="utf-8")


@contextlib.contextmanager
def _whole_folder(directory: Path) -> Iterator[Path]:
    """Make a folder beside, which takes the place of the other one when the block ends without an error."""
    target = Path(os.path.realpath(directory))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        message = "There is something there already; name a folder that is new or empty"
        raise FileExistsError(errno.EEXIST, message, str(directory))
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "No such directory; create it first", str(target.parent))
    folder = target.parent / f".gymtrain-{secrets.token_hex(6)}"
    folder.mkdir()
    try:
        yield folder
        if target.exists():
            target.rmdir()
        folder.rename(target)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError) and error.errno is not None and _is_within(folder, error):
            raise OSError(error.errno, error.strerror, str(directory)) from None
        raise


def _is_within(folder: Path, error: OSError) -> bool:
    """Tell whether an error is about a file that the user has never heard of."""
    named = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return not named or any(name.startswith(str(folder)) for name in named)


def _card(bundle: Bundle) -> str:
    """Return the model card with what the Hub reads in front of it."""
    spec, labels = bundle.spec, bundle.schema["labels"]
    model, dataset = spec["model"]["model"]["type"], spec["dataset"]["dataset"]["type"]
    task = _task(bundle.schema)
    facts: dict[str, Any] = {"library_name": "gymtrain", "pipeline_tag": task}
    facts["tags"] = sorted({"gymtrain", labels["task"], model})
    split, metrics = _metrics(bundle.results)
    if metrics:
        data = {"type": dataset, "name": dataset, "split": split}
        results = [{"task": {"type": task}, "dataset": data, "metrics": metrics}]
        facts["model-index"] = [{"name": f"{model} on {dataset}", "results": results}]
    front = yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)
    use = f'On the Hub: `pip install "gymtrain[hf]"`, then `Trainer.load("hf://ORGANIZATION/NAME/{BUNDLE}")`.'
    return f"---\n{front}---\n\n{bundle.readme.rstrip()}\n\n{use}\n"


def _task(schema: Mapping[str, Any]) -> str:
    """Return the nearest of the tasks that the Hub knows: rows with height and width are images, all others tables."""
    features = schema["features"]
    kind = "regression" if schema["labels"]["task"] == "regression" else "classification"
    is_image = features["columns"] is None and len(features["shape"]) in (2, 3)
    return "image-classification" if is_image and kind == "classification" else f"tabular-{kind}"


def _metrics(results: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """Return the part of the rows that tells most, and the metrics of the kept weights on it."""
    tested = {
        name.removeprefix("test/"): value
        for name, value in results.get("metrics", {}).items()
        if name.startswith("test/") and isinstance(value, int | float)
    }
    best = results.get("best")
    if not tested and best and best["metric"].startswith("val/"):
        return "validation", [{"type": best["metric"].removeprefix("val/"), "value": best["value"]}]
    return "test", [{"type": name, "value": value} for name, value in sorted(tested.items())]
