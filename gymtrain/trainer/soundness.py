"""Whether what was read out of a bundle can predict: found when it is loaded, and not in the first answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from gymtrain.bundle import State, to_numpy
from gymtrain.data.images import Images
from gymtrain.errors import BundleError, GymtrainError, some
from gymtrain.models.contract import Learner
from gymtrain.models.torch_learner import TorchLearner
from gymtrain.trainer.predictor import Predictor

# An image of more is not looked at while a bundle is loaded.
CHECKED_PIXELS = 4_000_000


def non_finite_weights(learner: Learner) -> list[str]:
    """Return the names of the parameters of a torch module that hold NaN or infinity: its answers could be no others.

    Buffers may hold infinity: masks do.
    """
    return [name for name, is_finite in _parameters(learner) if not is_finite]


def _parameters(learner: Learner) -> Iterator[tuple[str, bool]]:
    """Yield the name of each parameter of a torch module, and whether all of it is finite."""
    if isinstance(learner, TorchLearner):
        for name, tensor in learner.module.named_parameters():
            yield name, _is_finite(tensor.detach())


def _is_finite(tensor: torch.Tensor) -> bool:
    # A sum is finite unless something in it is not, or it overflows: it needs no memory of the size of the tensor.
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def check_weights(learner: Learner) -> Iterator[None]:
    """Refuse a model that can answer nothing but NaN, tensor by tensor.

    Raises:
        BundleError: `weights_nonfinite`.
    """
    bad = []
    for name, is_finite in _parameters(learner):
        if not is_finite:
            bad.append(name)
        yield
    if bad:
        raise BundleError(f"weights.safetensors: {some(bad)} hold NaN or infinity", reason="weights_nonfinite")


def check_preprocessors(predictor: Predictor, states: Iterable[State]) -> None:
    """Refuse preprocessors that make nothing of the rows of the self-check that the model could take.

    Raises:
        BundleError: `preprocess`.
    """
    for position, ((name, step), state) in enumerate(zip(predictor.pipeline.steps, states, strict=True)):
        arrays = {key: to_numpy(tensor) for key, tensor in state.tensors.items()}
        bad = [key for key, array in arrays.items() if array.dtype.kind == "c" or not np.isfinite(array).all()]
        if bad and type(step).__module__.startswith("gymtrain."):
            message = f"preprocessors[{position}] ({name}): {some(bad)} hold something but finite numbers"
            raise BundleError(message, reason="preprocess")
    examples = predictor.examples
    if isinstance(examples, Images):
        examples = _cheap_sample(predictor, examples)
    if examples is None:
        return
    try:
        with np.errstate(all="ignore"):  # what it makes is looked at
            rows = predictor.features.check(examples, missing=predictor.pipeline.handles_missing)
            predictor.inputs(rows)
    except GymtrainError as error:
        raise BundleError(f"of the rows of the self-check: {error}", reason="preprocess") from error


def _cheap_sample(predictor: Predictor, images: Images) -> Images | None:
    """Return one image, where looking at it takes little memory, whatever size the bundle says; else None."""
    sizes = [step.width * step.height for step in predictor.pipeline.picture_steps if hasattr(step, "width")]
    if not sizes or max(sizes) > CHECKED_PIXELS:
        return None
    return Images(images.sources[:1], max_pixels=CHECKED_PIXELS)
