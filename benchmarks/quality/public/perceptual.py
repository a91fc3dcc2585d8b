"""Measures LPIPS through the package that its authors published, which is imported when it is asked for.

Its network is AlexNet, whose weights torchvision fetches when it is first used.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....engine.errors import MissingDependencyError
from ....engine.system.packages import require

LPIPS_PACKAGES: Mapping[str, str] = {"torch": "torch", "torchvision": "torchvision", "lpips": "lpips"}
"""The modules of the extra `lpips`, and the packages that have them."""


class Lpips:
    """Holds the network of LPIPS, version 0.1 over AlexNet, in float32 on the CPU.

    Source: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (2018).

    Raises:
        MissingDependencyError: The packages are missing, or do not fit each other.
    """

    def __init__(self) -> None:
        require("LPIPS", LPIPS_PACKAGES, "lpips")
        try:
            library = importlib.import_module("lpips")
        except (
            ImportError,
            RuntimeError,
            OSError,
        ) as error:  # torchvision for another build of torch fails in its own way
            raise MissingDependencyError(
                f"lpips cannot be imported: {error}. torchvision must be built for the torch that is installed; "
                "install both from one index"
            ) from error
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning)  # it calls torchvision as before version 0.13
            self._network: Any = library.LPIPS(net="alex", version="0.1", verbose=False)

    def distance(self, one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
        """Return the distance of two pictures (h, w, 3) of 8 bits; 0 for equal ones."""
        import torch

        tensors = [
            torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None] for pixels in (one, other)
        ]
        with torch.inference_mode():
            return float(self._network(*tensors))
