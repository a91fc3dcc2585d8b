"""Reads checkpoints as users have them."""

from .layouts import CheckpointFiles
from .open import Checkpoint, as_checkpoint, open_checkpoint
from .views import TensorView, View, Weights

__all__ = ["Checkpoint", "CheckpointFiles", "TensorView", "View", "Weights", "as_checkpoint", "open_checkpoint"]
