"""Makes a request ready for one model: defaults are filled in, the reference is read and brought to its size."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...engine.bundle.manifest import ModelRecord
from ...engine.errors import RequestError
from ...engine.sizes import Grid, Size, squarest, token_grid
from .pictures import Picture, read_picture
from .placement import Fit, Placement, nearest_size, place
from .request import Request

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Holds a reference that was brought to its size: `pixels` (H, W, 3) uint8."""

    pixels: NDArray[np.uint8]
    placement: Placement

    @property
    def grid(self) -> Grid:
        return token_grid(self.placement.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRequest:
    """Holds all that a request is made of, for one model.

    `noise` (b, n, channels) float32 replaces what the seeds would draw.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    size: Size
    steps: int
    guidance: float
    reference: Reference | None
    noise: NDArray[np.float32] | None

    @property
    def jobs(self) -> tuple[tuple[str, int], ...]:
        """The (prompt, seed) of each picture, prompts outermost."""
        return tuple((prompt, seed) for prompt in self.prompts for seed in self.seeds)

    @property
    def grid(self) -> Grid:
        return token_grid(self.size)


def prepare(request: Request, model: ModelRecord) -> PreparedRequest:
    """Fill in a model's defaults, draw a seed if none is given, and read and place the reference.

    Raises ImageError for a picture that cannot be read, RequestError for noise of another shape than the pictures'.
    """
    sampling = request.sampling
    assert isinstance(request.fit, Fit)
    reference = None if request.image is None else _reference(request.image, request.fit, model)
    default = squarest(model.sizes) if reference is None else reference.placement.size
    prepared = PreparedRequest(
        prompts=request.prompts,
        seeds=sampling.seeds or (secrets.randbits(32),),
        size=default if sampling.size is None else sampling.size,
        steps=model.flow.steps if sampling.steps is None else sampling.steps,
        guidance=model.flow.guidance if sampling.guidance is None else sampling.guidance,
        reference=reference,
        noise=sampling.noise,
    )
    height, width = prepared.grid
    wanted = (len(prepared.jobs), height * width, model.dims.channels)
    if prepared.noise is not None and prepared.noise.shape != wanted:
        raise RequestError(f"noise must be of shape {wanted}, this is {prepared.noise.shape}")
    return prepared


def _reference(image: Picture, fit: Fit, model: ModelRecord) -> Reference:
    original = read_picture(image)
    placed, placement = place(original, nearest_size(original.size, model.sizes), fit)
    logger.info("reference %s", placement.describe())
    return Reference(pixels=np.asarray(placed), placement=placement)
