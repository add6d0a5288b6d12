"""What augmentors make of the train part, to be looked at before anything is learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from gymtrain.data.augmentors import Augmentation
from gymtrain.data.decoding import ImageArray
from gymtrain.errors import DataError
from gymtrain.figures.samples import augmented, is_image
from gymtrain.models.seeding import seeded
from gymtrain.models.tasks import Binary, Multiclass
from gymtrain.specs import Experiment
from gymtrain.trainer.preparation import Prepared, build_augmentation, fit_preprocessors, load, transform

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLES = 8


def preview(experiment: Experiment, samples: int = SAMPLES, epochs: int = 3) -> Figure:
    """Prepare the data of an experiment, and draw the first samples of its train part.

    Args:
        experiment: What would be trained.
        samples: How many are drawn.
        epochs: As they are in how many epochs, beside what they are in the dataset.

    Returns:
        A figure of matplotlib.

    Raises:
        DataError: The rows cannot be trained on, or are no images.
    """
    dataset = experiment.dataset
    source = dataset.dataset.build()
    if hasattr(source, "prepare"):
        source.prepare()
    data = load(source, dataset, experiment.model.training)
    fit_preprocessors(data, dataset)
    transform(data, dataset)
    shape = data.inputs["train"].shape[1:]
    if not is_image(shape):
        raise DataError(
            f"preview: the rows have the shape {shape}; expected images, (height, width) or (height, width, channels)"
        )
    return draw_augmented(data, build_augmentation(data, dataset), samples, epochs)


def draw_augmented(
    data: Prepared, augmentation: Augmentation | None, samples: int = SAMPLES, epochs: int = 1
) -> Figure:
    """Draw the first samples of the train part, which are images, and what they are in the first epochs.

    They are what the model gets, before `divide` and `normalize` at the end of the preprocessors are done to them. What
    is mixed with others of its batch is mixed here with the others that are drawn.
    """
    inputs = data.inputs["train"]
    rows = np.arange(min(samples, len(inputs)))
    if isinstance(inputs, ImageArray):
        pixels, rows = inputs.gathered(rows)
    else:
        pixels = inputs[rows]
    images, ids = torch.from_numpy(np.array(pixels)).float(), torch.from_numpy(rows)
    versions = [("original", images.numpy())]
    with seeded(0):  # an augmentor that draws for itself leaves the generators of the training alone
        for epoch in range(1, epochs + 1) if augmentation is not None else ():
            assert augmentation is not None
            changed = augmentation(images, epoch, ids)
            if augmentation.mixes:
                changed, _ = augmentation.mix(changed, torch.zeros(len(rows)), epoch, ids)
            versions.append((f"epoch {epoch}", changed.numpy()))
    task = data.task
    names = task.classes[data.codes("train")[rows]].tolist() if isinstance(task, Binary | Multiclass) else []
    return augmented(versions, names, data.pixel_range)
