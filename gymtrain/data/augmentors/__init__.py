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
from gymtrain.data.augmentors.distortion import Distort, GaussianDistortion
from gymtrain.data.augmentors.erasing import RandomErasing
from gymtrain.data.augmentors.geometry import Flip, RandomCrop, Rotate, RotateRange, Shear, Skew, Zoom, ZoomRandom
from gymtrain.data.augmentors.mixing import CutMix, Mixing, MixUp
from gymtrain.data.augmentors.trivial import TrivialAugment

__all__ = [
    "Augmentation",
    "Augmentor",
    "CutMix",
    "Distort",
    "Factor",
    "Flip",
    "GaussianDistortion",
    "Grayscale",
    "HistogramEqualisation",
    "Invert",
    "MixUp",
    "Mixing",
    "Probability",
    "RandomBrightness",
    "RandomColor",
    "RandomContrast",
    "RandomCrop",
    "RandomErasing",
    "Rotate",
    "RotateRange",
    "Shear",
    "Skew",
    "TrivialAugment",
    "Zoom",
    "ZoomRandom",
]
