"""Finds the layout of a network's NVFP4 weights: from their own numbers, from a reference, or because it is trusted.

No marker in a file is believed: engines that did showed noise, without an error.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ...engine.errors import CheckpointError
from .nvfp4 import LAYOUTS, Nvfp4Layout, Nvfp4View
from .nvfp4_evidence import LAYERS, ROWS, nibble_evidence, scale_evidence, spread
from .views import TensorView

LEAST_COSINE = 0.98
"""The least cosine of the right layout's values with the reference's; rounding to NVFP4 alone leaves 0.995."""
COSINE_MARGIN = 0.01
"""The least distance of the next layout. Forgetting the tiles alone still has a cosine of 0.96."""
_logger = logging.getLogger(__name__)


def has_nvfp4(views: Mapping[str, TensorView]) -> bool:
    """Return whether any weight is NVFP4."""
    return any(isinstance(view, Nvfp4View) for view in views.values())


def with_layout(
    views: Mapping[str, TensorView], source: str, reference: Mapping[str, TensorView] | None, trusted: str | None
) -> dict[str, TensorView]:
    """Return the views with the layout of all NVFP4 weights known; the views themselves if there are none.

    Args:
        views: A network's tensors under this project's names.
        source: Their file, for messages.
        reference: The same network's tensors, not quantized, or None.
        trusted: The name of the layout to take untested, or None.

    Raises:
        CheckpointError: The layout cannot be told, the reference is of other weights, or there is no such layout.
    """
    quantized = {name: view for name, view in views.items() if isinstance(view, Nvfp4View)}
    if not quantized:
        return dict(views)
    if trusted is not None:
        layout = _trusted(trusted, quantized, source)
    elif reference is not None:
        layout = _by_reference(quantized, reference, source)
    else:
        layout = _by_evidence(views, source)
    return {name: replace(view, layout=layout) if isinstance(view, Nvfp4View) else view for name, view in views.items()}


def _trusted(name: str, quantized: Mapping[str, Nvfp4View], source: str) -> Nvfp4Layout:
    if name not in LAYOUTS:
        raise CheckpointError(f"a layout of NVFP4 is one of {', '.join(LAYOUTS)}, not {name!r}")
    layout = LAYOUTS[name]
    odd = next((one for one, view in quantized.items() if not view.fits(swizzled=layout.swizzled)), None)
    if odd is not None:
        raise CheckpointError(
            f"{source}: the layout cannot be {name}: the block scales of {odd} are too many or too few"
        )
    return layout


def _by_evidence(views: Mapping[str, TensorView], source: str) -> Nvfp4Layout:
    scales = scale_evidence(views)
    if scales.decided is None:
        raise _undecided(source, str(scales))
    nibbles = nibble_evidence(views, swizzled=scales.decided)
    if nibbles.decided is None:
        raise _undecided(source, f"{scales}; {nibbles}")
    layout = Nvfp4Layout(swizzled=scales.decided, high_first=nibbles.decided)
    _logger.info("%s has NVFP4 weights in the layout %s: %s; %s", source, layout.name, scales, nibbles)
    return layout


def _undecided(source: str, found: str) -> CheckpointError:
    usual = "swizzled-high in BFL's and ComfyUI's files, linear-low in ModelOpt's and diffusers'"
    return CheckpointError(
        f"{source} has NVFP4 weights, and how they lie cannot be told from the file alone ({found}); give the same "
        f"weights unquantized with --reference-weights FILE, or name the layout with --trust-layout ({usual})"
    )


def _by_reference(quantized: Mapping[str, Nvfp4View], reference: Mapping[str, TensorView], source: str) -> Nvfp4Layout:
    shared = [name for name, view in quantized.items() if name in reference and reference[name].shape == view.shape]
    compared = [name for name in shared if not isinstance(reference[name], Nvfp4View)]
    if not compared:
        raise CheckpointError(f"the reference of {source} has no unquantized weight of the names and shapes of its own")
    chosen = spread(compared, LAYERS)
    found = {
        name: _cosine([quantized[one] for one in chosen], [reference[one] for one in chosen], layout)
        for name, layout in LAYOUTS.items()
        if all(view.fits(swizzled=layout.swizzled) for view in quantized.values())
    }
    best, *others = sorted(found, key=lambda name: -found[name])
    if found[best] < LEAST_COSINE or any(found[other] > found[best] - COSINE_MARGIN for other in others):
        cosines = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
        raise CheckpointError(
            f"{source} and its reference have other weights, whatever the layout (cosines: {cosines}; at least "
            f"{LEAST_COSINE} is wanted, and {COSINE_MARGIN} between the first two); give the weights that it was "
            "made from"
        )
    _logger.info("%s has NVFP4 weights in the layout %s: cosine %.4f with its reference", source, best, found[best])
    return LAYOUTS[best]


def _cosine(quantized: list[Nvfp4View], reference: list[TensorView], layout: Nvfp4Layout) -> float:
    products = torch.zeros(3, dtype=torch.float64)
    for one, other in zip(quantized, reference, strict=True):
        rows = min(one.shape[0], ROWS)
        products += _products(replace(one, layout=layout).rows(0, rows).read(), other.rows(0, rows).read())
    xy, xx, yy = products.tolist()
    return xy / (xx * yy) ** 0.5 if xx > 0 and yy > 0 else 0.0


def _products(x: Tensor, y: Tensor) -> Tensor:
    return torch.stack([(a * b).sum(dtype=torch.float64) for a, b in ((x, y), (x, x), (y, y))])
