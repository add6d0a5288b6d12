"""Where a model looks: how much each pixel of an image changes what is said of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gymtrain.data.decoding import Decoder
from gymtrain.data.images import Images
from gymtrain.data.rows import Rows
from gymtrain.data.schema import number_of_rows, row_blocks
from gymtrain.errors import InputError, TaskError, did_you_mean, some
from gymtrain.models.tasks import Task
from gymtrain.models.torch_learner import TorchLearner, as_input
from gymtrain.trainer.predictor import Array, Predictor

# Gradients need the activations of all layers.
ROWS_AT_A_TIME = 32
MAX_SAMPLES = 10_000

_RED = np.array([255.0, 32.0, 0.0], np.float32)


def saliency(
    predictor: Predictor, X: Any, target: Any, *, samples: int, noise: float, seed: int, overlay: bool
) -> Array:
    """Return what `Trainer.saliency` does.

    Raises:
        TaskError: The model has no gradients.
        InputError: The rows are no images that the model takes, there is no such target, or an argument has a value
            that it cannot have.
    """
    learner, shape = predictor.learner, predictor.input_shape
    if not isinstance(learner, TorchLearner):
        raise TaskError("saliency: it is made of gradients, and only a torch module has them")
    if len(shape) not in (2, 3):
        raise InputError(f"saliency: the model takes rows of shape {shape}; expected images, (height, width, channels)")
    _check(samples, noise, seed)
    output = _output(predictor.task, target)
    X = predictor.features.known_form(X)
    found = [np.empty((0, *shape[:2], 3), np.uint8) if overlay else np.empty((0, *shape[:2]), np.float32)]
    for block in row_blocks(X, ROWS_AT_A_TIME) if number_of_rows(X) is not None else [X]:
        rows = predictor.features.check(block, missing=predictor.pipeline.handles_missing)
        if len(rows):
            inputs = predictor.inputs(rows)
            maps = _maps(learner, inputs, output, samples, noise, seed)
            found.append(_overlaid(_pixels(predictor, rows, inputs), maps) if overlay else maps)
    return np.concatenate(found)


def _check(samples: int, noise: float, seed: int) -> None:
    for name, value, most in (("samples", samples, MAX_SAMPLES), ("seed", seed, 2**63 - 1)):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise InputError(f"saliency: {name}: got {value!r}; expected a whole number from 0 to {most}")
    if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 < noise <= 1:
        raise InputError(f"saliency: noise: got {noise!r}; expected a number above 0, up to 1")


def _output(task: Task, target: Any) -> int | None:
    """Return which of the outputs of a task is meant; None for the largest of each row."""
    if task.has_probabilities:
        names = task.classes.tolist()
    else:
        facts = task.to_dict()
        names = list(facts["names"] or range(task.output_size))
    if target is None and (task.has_probabilities or len(names) == 1):
        return None
    by_text = {str(name): position for position, name in enumerate(names)}
    if str(target) not in by_text:
        hint = did_you_mean(str(target), by_text)
        raise InputError(f"saliency: target: got {target!r}; expected one of {some(names, 20)}{hint}")
    return by_text[str(target)]


def _maps(
    learner: TorchLearner, inputs: Array, output: int | None, samples: int, noise: float, seed: int
) -> npt.NDArray[np.float32]:
    learner.module.eval()
    rows = as_input(inputs).to(learner.device)
    if output is None:
        # Of noisy copies another output may be the largest.
        with torch.no_grad():
            chosen = learner.module(rows.to(learner.dtype)).argmax(dim=1)
    else:
        chosen = torch.full((len(rows),), output, device=learner.device)
    if samples == 0:
        gradients = _gradients(learner, rows, chosen)
    else:
        pixels = rows.flatten(1)
        width = (noise * (pixels.amax(1) - pixels.amin(1))).view(-1, *[1] * (rows.ndim - 1))
        # The same noise for each row: what becomes of it does not depend on the others.
        generator = torch.Generator().manual_seed(seed)
        gradients = torch.zeros_like(rows)
        for _ in range(samples):
            drawn = torch.randn(rows.shape[1:], generator=generator).to(learner.device)
            gradients += _gradients(learner, rows + width * drawn, chosen)
    sizes = gradients.abs()
    sizes = sizes.amax(dim=3) if sizes.ndim == 4 else sizes
    largest = sizes.amax(dim=(1, 2), keepdim=True)
    maps: npt.NDArray[np.float32] = (sizes / torch.where(largest > 0, largest, 1)).cpu().numpy()
    return maps


def _gradients(learner: TorchLearner, rows: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Return how much the chosen output of each row changes with its pixels, float32 of the shape of the rows."""
    with torch.enable_grad():
        inputs = rows.detach().to(learner.dtype).requires_grad_()
        outputs = learner.module(inputs)
        if not outputs.requires_grad:
            raise TaskError(f"saliency: what {type(learner.module).__name__} returns has no gradients")
        # The one output for two classes says the same of both, but for its sign.
        picked = outputs[:, 0] if outputs.shape[1] == 1 else outputs.gather(1, chosen[:, None])
        (found,) = torch.autograd.grad(picked.sum(), inputs, allow_unused=True)
    return torch.zeros_like(rows) if found is None else found.float()


def _pixels(predictor: Predictor, rows: Rows, inputs: Array) -> npt.NDArray[np.float32]:
    """Return what people see of images, from 0 to 255: of the size that the model gets."""
    pixels: Array = Decoder(rows, predictor.pipeline.picture_steps)[:] if isinstance(rows, Images) else np.asarray(rows)
    if pixels.dtype == np.uint8 and pixels.shape[:3] == inputs.shape[:3]:
        return pixels.astype(np.float32)
    low, high = inputs.min(), inputs.max()
    scaled: npt.NDArray[np.float32] = (inputs - low) * (255 / (high - low if high > low else 1))
    return scaled


def _overlaid(pixels: npt.NDArray[np.float32], maps: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return images in grey with red where the maps are large, uint8 (rows, height, width, 3)."""
    grey = (pixels.mean(axis=3) if pixels.ndim == 4 else pixels)[..., None]
    # Half as bright as it was, so that red is seen on white, too.
    mixed: npt.NDArray[np.float32] = (1 - maps[..., None]) * grey * 0.6 + maps[..., None] * _RED
    return np.round(mixed).astype(np.uint8)
