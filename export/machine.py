"""Warns before an export that nothing on this machine will run what comes of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ..engine.bundle.bundle import Bundle
from ..runtime.executors.here import why_not_here
from .checkpoint import Checkpoint
from .checkpoint.nvfp4_layout import has_nvfp4
from .configs import FOLDERS
from .graphs.weights import stored_precision
from .options import ExportOptions

logger = logging.getLogger(__name__)


def warn_of_machine(checkpoint: Checkpoint, options: ExportOptions, products: Iterable[str] = ()) -> None:
    """Log a warning if no executor of this machine runs what an export is going to make, with the option that helps.

    Args:
        checkpoint: What is exported.
        options: How it is exported.
        products: The number types that a recipe multiplies in, such as "fp8".
    """
    views = [checkpoint.weights(part).views for part in FOLDERS]
    types = {options.precision or stored_precision(of_part.values()) for of_part in views}
    wanted = {precision.value for precision in types}.union(products)
    if options.fp8_as_stored and options.input_scales and any(map(has_nvfp4, views)):
        wanted.add("nvfp4")
    reason = why_not_here(wanted)
    if reason:
        logger.warning("this machine will not run the bundle: %s", reason)


def why_bundle_not_here(bundle: Bundle) -> str:
    """Return why no executor of this machine runs a bundle, "" if one does."""
    graphs = bundle.manifest.graphs.values()
    products = {name for graph in graphs if graph.quantization is not None for name in graph.quantization.products}
    return why_not_here({graph.precision.value for graph in graphs} | (products & {"fp8", "nvfp4"}))
