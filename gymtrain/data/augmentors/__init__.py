"""Augmentors: they change the images of a batch, sample by sample, differently in every epoch.

Nothing here imports torch before a batch comes: a spec is checked against these constructors without it.
"""

from gymtrain.data.augmentors.base import Augmentor, Factor, Probability
from gymtrain.data.augmentors.chain import Augmentation
from gymtrain.data.augmentors.colour import (
    Grayscale,
    HistogramEqualisation,
    Invert,
    RandomBrightness,
    RandomColor,
    RandomContrast,
)
from gymtrain.data.augmentors.geometry import Flip, RandomCrop, Rotate, RotateRange, Shear, Skew, Zoom, ZoomRandom

__all__ = [
    "Augmentation",
    "Augmentor",
    "Factor",
    "Flip",
    "Grayscale",
    "HistogramEqualisation",
    "Invert",
    "Probability",
    "RandomBrightness",
    "RandomColor",
    "RandomContrast",
    "RandomCrop",
    "Rotate",
    "RotateRange",
    "Shear",
    "Skew",
    "Zoom",
    "ZoomRandom",
]
