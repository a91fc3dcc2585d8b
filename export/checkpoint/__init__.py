"""Reads checkpoints as users have them.

A name is imported when it is first asked for: where parts lie is said without torch, which their weights need.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from .open import Checkpoint, as_checkpoint, open_checkpoint
    from .places import CheckpointFiles
    from .views import TensorView, View, Weights

__all__ = ["Checkpoint", "CheckpointFiles", "TensorView", "View", "Weights", "as_checkpoint", "open_checkpoint"]
__getattr__, _, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "open": ["Checkpoint", "as_checkpoint", "open_checkpoint"],
        "places": ["CheckpointFiles"],
        "views": ["TensorView", "View", "Weights"],
    },
)
