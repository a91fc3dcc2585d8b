"""Names what the activations of networks grow with."""

from __future__ import annotations

from enum import Enum


class GrowsWith(str, Enum):
    """Says what a component's activations grow with: tokens between two of its layers, or the values of a picture."""

    NONE = "none"
    TOKENS = "tokens"
    REFERENCE = "reference"
    PICTURE = "picture"
