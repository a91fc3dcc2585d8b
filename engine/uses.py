"""Says what a request runs a component once for, and what a recipe may change of it."""

from __future__ import annotations

from enum import Enum


class Runs(str, Enum):
    """Says what a request runs a component once for.

    Encodings of prompts and references are kept between requests.
    """

    PROMPT = "prompt"
    REFERENCE = "reference"
    REQUEST = "request"
    STEP = "step"
    PICTURE = "picture"


class Quantized(str, Enum):
    """Says what a recipe may change of a component's linear layers.

    Attributes:
        NOTHING: They stay as they are.
        WEIGHTS: Weights alone, which needs no calibration.
        PRODUCTS: Weights and calibrated activations, and attention's products.
    """

    NOTHING = "nothing"
    WEIGHTS = "weights"
    PRODUCTS = "products"
