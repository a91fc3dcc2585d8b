"""Reads checkpoints as users have them."""

from .open import Checkpoint, CheckpointFiles, open_checkpoint
from .views import View, Weights

__all__ = ["Checkpoint", "CheckpointFiles", "View", "Weights", "open_checkpoint"]
