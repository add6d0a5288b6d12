"""Which class stands behind a name: built in, registered, of an installed plug-in, or `"package.module:Class"`."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from collections.abc import Callable, Collection
from functools import cache
from typing import Any, TypeVar

from gymtrain.errors import GymtrainError, RegistrationError, did_you_mean

T = TypeVar("T", bound=Callable[..., Any])

# Strings, not classes: the module behind a name is imported when a spec uses it. These modules load neither torch nor
# mlflow when they are imported, because specs are checked against the signatures in them.
BUILTIN: dict[str, dict[str, str]] = {
    "dataset": {
        "arrays": "gymtrain.data.sources:Arrays",
        "breast_cancer": "gymtrain.data.sources:BreastCancer",
        "cifar10": "gymtrain.data.image_sources.small_images:Cifar10",
        "csv": "gymtrain.data.sources:Csv",
        "dataframe": "gymtrain.data.sources:DataFrame",
        "diabetes": "gymtrain.data.sources:Diabetes",
        "digits": "gymtrain.data.sources:Digits",
        "dogs_vs_cats": "gymtrain.data.image_sources.published:DogsVsCats",
        "fashion_mnist": "gymtrain.data.image_sources.small_images:FashionMnist",
        "hdf5": "gymtrain.data.image_sources.hdf5:Hdf5",
        "huggingface": "gymtrain.data.image_sources.huggingface:HuggingFace",
        "image_csv": "gymtrain.data.image_sources.folder:ImageCsv",
        "image_folder": "gymtrain.data.image_sources.folder:ImageFolder",
        "iris": "gymtrain.data.sources:Iris",
        "mnist": "gymtrain.data.image_sources.small_images:Mnist",
        "parquet": "gymtrain.data.sources:Parquet",
        "wine": "gymtrain.data.sources:Wine",
    },
    "preprocessor": {
        "center_crop": "gymtrain.data.image_preprocessors:CenterCrop",
        "divide": "gymtrain.data.preprocessors:Divide",
        "grayscale": "gymtrain.data.image_preprocessors:Grayscale",
        "grayscale_to_color": "gymtrain.data.image_preprocessors:GrayscaleToColor",
        "image_resize": "gymtrain.data.image_preprocessors:ImageResize",
        "kbest": "gymtrain.data.preprocessors:KBest",
        "min_max_scaler": "gymtrain.data.preprocessors:MinMaxScaler",
        "normalize": "gymtrain.data.image_preprocessors:Normalize",
        "replace": "gymtrain.data.preprocessors:Replace",
        "sklearn": "gymtrain.data.fitted:SklearnTransformer",
        "standard_scaler": "gymtrain.data.preprocessors:StandardScaler",
        "tabular": "gymtrain.data.tabular:Tabular",
    },
    "augmentor": {
        "cutmix": "gymtrain.data.augmentors.mixing:CutMix",
        "distort": "gymtrain.data.augmentors.distortion:Distort",
        "flip": "gymtrain.data.augmentors.geometry:Flip",
        "gaussian_distortion": "gymtrain.data.augmentors.distortion:GaussianDistortion",
        "grayscale": "gymtrain.data.augmentors.colour:Grayscale",
        "histogram_equalisation": "gymtrain.data.augmentors.colour:HistogramEqualisation",
        "invert": "gymtrain.data.augmentors.colour:Invert",
        "mixup": "gymtrain.data.augmentors.mixing:MixUp",
        "random_brightness": "gymtrain.data.augmentors.colour:RandomBrightness",
        "random_color": "gymtrain.data.augmentors.colour:RandomColor",
        "random_contrast": "gymtrain.data.augmentors.colour:RandomContrast",
        "random_crop": "gymtrain.data.augmentors.geometry:RandomCrop",
        "random_erasing": "gymtrain.data.augmentors.erasing:RandomErasing",
        "rotate": "gymtrain.data.augmentors.geometry:Rotate",
        "rotate_range": "gymtrain.data.augmentors.geometry:RotateRange",
        "shear": "gymtrain.data.augmentors.geometry:Shear",
        "skew": "gymtrain.data.augmentors.geometry:Skew",
        "trivial_augment": "gymtrain.data.augmentors.trivial:TrivialAugment",
        "zoom": "gymtrain.data.augmentors.geometry:Zoom",
        "zoom_random": "gymtrain.data.augmentors.geometry:ZoomRandom",
    },
    "model": {
        "cnn": "gymtrain.models.networks.convolutional:cnn",
        "dogs_vs_cats_cnn": "gymtrain.models.networks.convolutional:dogs_vs_cats_cnn",
        "linear": "gymtrain.models.networks.dense:linear",
        "mlp": "gymtrain.models.networks.dense:mlp",
        "resnet": "gymtrain.models.networks.residual:resnet",
        "sklearn": "gymtrain.models.estimators:SklearnModel",
        "timm": "gymtrain.models.timm_networks:timm_network",
    },
    "tracker": {
        "comet": "gymtrain_trackers.comet:CometTracker",
        "history": "gymtrain_trackers.history:HistoryTracker",
        "jsonl": "gymtrain_trackers.jsonl:JSONLinesTracker",
        "mlflow": "gymtrain_trackers.mlflow:MLflowTracker",
        "tensorboard": "gymtrain_trackers.tensorboard:TensorBoardTracker",
        "wandb": "gymtrain_trackers.wandb:WandbTracker",
    },
    "schedule": {
        "chain": "gymtrain.training.composed_schedules:Chain",
        "constant": "gymtrain.training.schedules:Constant",
        "cosine": "gymtrain.training.schedules:Cosine",
        "cosine_restarts": "gymtrain.training.schedules:CosineRestarts",
        "exponential": "gymtrain.training.schedules:Exponential",
        "linear_warmup": "gymtrain.training.schedules:LinearWarmup",
        "multistep": "gymtrain.training.schedules:Multistep",
        "one_cycle": "gymtrain.training.schedules:OneCycle",
        "plateau": "gymtrain.training.schedules:Plateau",
        "step": "gymtrain.training.schedules:Step",
        "switch": "gymtrain.training.schedules:Switch",
    },
    # A loss of the user's; the ready ones are those of torch.nn, by their own names.
    "loss": {},
}
KINDS = tuple(BUILTIN)

# Makes a schedule of a function of the time, which is given first, and of its other arguments.
FUNCTION_SCHEDULE = "gymtrain.training.composed_schedules:FunctionSchedule"

# Where installed packages announce types of theirs.
PLUGIN_GROUPS = {kind: f"gymtrain.{'losses' if kind == 'loss' else kind + 's'}" for kind in KINDS}

_LOCATION = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")

_registered: dict[tuple[str, str], Callable[..., Any]] = {}


class UnknownTypeError(GymtrainError, LookupError):
    """No class stands behind a name; the message says what is known."""


def register(kind: str, name: str) -> Callable[[T], T]:
    """Give a class a name that specs can use.

    Args:
        kind: What it is: `"dataset"`, `"preprocessor"`, `"augmentor"`, `"model"`, `"schedule"`, `"loss"` or
            `"tracker"`.
        name: The name for `{"type": name}`. Registering the same name again replaces the class, as a notebook
            cell that runs twice expects; the names of built-in types are taken.

    Raises:
        RegistrationError: The kind is unknown, the name is a built-in one, or holds a colon, or what is decorated is
            neither a class nor a function.

    Example:
        >>> from gymtrain import register
        >>> @register("preprocessor", "clip")
        ... class Clip:
        ...     def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        ...         self.low, self.high = low, high
        ...     def transform(self, X):
        ...         return X.clip(self.low, self.high)
    """
    if kind not in KINDS:
        raise RegistrationError(f"register: got the kind {kind!r}; expected one of {', '.join(map(repr, KINDS))}")
    if not isinstance(name, str) or not name or ":" in name:
        raise RegistrationError(f"register: got the name {name!r}; expected a word without a colon")
    if name in BUILTIN[kind]:
        raise RegistrationError(f"register: the {kind} {name!r} is built in; choose another name")

    def decorate(target: T) -> T:
        if not callable(target):
            raise RegistrationError(f"register: got {target!r}; expected a class or a function")
        _registered[kind, name] = target
        return target

    return decorate


def find(kind: str, name: str, *, trusted: Collection[str] | None = None) -> Callable[..., Any]:
    """Return the class (or function that builds one) behind a name.

    Args:
        kind: One of `KINDS`.
        name: A registered name or `"package.module:Class"`.
        trusted: None when the name comes from the user, who may name any class. For a name out of a file, the
            `"package.module:Class"` names that the caller allows to be imported; all others are refused.

    Raises:
        UnknownTypeError: No class stands behind the name, or the name may not be followed.
    """
    if (kind, name) in _registered:
        return _registered[kind, name]
    location = BUILTIN[kind].get(name)
    if location is not None:
        return locate(location)
    if name in _plugins(kind):
        point = _plugins(kind)[name]
        return locate(f"{point.module}:{point.attr}")
    if ":" in name:
        if trusted is not None and name not in trusted:
            raise UnknownTypeError(
                f"the {kind} {name!r} is not part of gymtrain and a file may not decide what is imported; if you "
                f"trust it, load the file with trust=[{name!r}]"
            )
        return locate(name)
    known = known_names(kind)
    if trusted is not None:
        raise UnknownTypeError(
            f"{name!r} is not a registered {kind}{did_you_mean(name, known)}; import the module that registers it, or "
            f"load the file with types={{{name!r}: …}}, what it stands for"
        )
    raise UnknownTypeError(
        f"{name!r} is not a registered {kind}{did_you_mean(name, known)}; known: {', '.join(known) or 'none'}; "
        f"or give 'package.module:Class'"
    )


def known_names(kind: str) -> list[str]:
    """Return the names that `find` knows for a kind, sorted."""
    registered = {name for registered_kind, name in _registered if registered_kind == kind}
    return sorted({*BUILTIN[kind], *registered, *_plugins(kind)})


def type_name(kind: str, target: Callable[..., Any]) -> str:
    """Return the name under which a class can be written into a spec: registered, or `"package.module:Class"`."""
    for (registered_kind, name), registered in _registered.items():
        if registered_kind == kind and registered is target:
            return name
    location = f"{target.__module__}:{target.__qualname__}"
    built_in = {value: name for name, value in BUILTIN[kind].items()}
    return built_in.get(location, location)


def locate(location: str) -> Callable[..., Any]:
    """Import what stands behind `"package.module:Class"`.

    Raises:
        UnknownTypeError: It is not written like this, cannot be imported, or is nothing that can be called.
    """
    if not _LOCATION.fullmatch(location):
        raise UnknownTypeError(f"got {location!r}; expected 'package.module:Class'")
    module_name, _, qualified_name = location.partition(":")
    try:
        target: Any = importlib.import_module(module_name)
    except Exception as error:
        # A module of the user's runs when it is imported, and can fail in any way.
        raise UnknownTypeError(
            f"{location!r}: importing {module_name!r} failed: {type(error).__name__}: {error}"
        ) from error
    for part in qualified_name.split("."):
        if not hasattr(target, part):
            raise UnknownTypeError(f"{location!r}: {module_name!r} has no {part!r}{did_you_mean(part, dir(target))}")
        target = getattr(target, part)
    if not callable(target):
        raise UnknownTypeError(f"{location!r} is a {type(target).__name__}; expected a class or a function")
    found: Callable[..., Any] = target
    return found


@cache
def _plugins(kind: str) -> dict[str, importlib.metadata.EntryPoint]:
    """Return what installed packages offer under the entry-point group, `gymtrain.models` and so on."""
    return {point.name: point for point in importlib.metadata.entry_points(group=PLUGIN_GROUPS[kind])}
