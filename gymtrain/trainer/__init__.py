"""`Trainer`: composes the rooms and tells the story in order."""

from gymtrain.trainer.trainer import Trainer

__all__ = ["Trainer"]
