"""Makes a result of what the flow computed, for the request that it computed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...engine.bundle.manifest import LoraRecord, Manifest
from ..flow.clock import Clock
from ..flow.run import Generated
from ..inputs.masking import PreparedMask
from ..inputs.prepared import PreparedRequest
from .paste import Paste
from .result import Output, Result


def finished(
    prepared: PreparedRequest,
    made: Generated,
    clock: Clock,
    manifest: Manifest,
    *,
    bundle: str,
    executor: str,
    loras: tuple[LoraRecord, ...],
) -> Result:
    """Return the result of a request.

    Args:
        prepared: The request.
        made: The pictures and latents that were computed.
        clock: The times that it took.
        manifest: The bundle's manifest.
        bundle: The fingerprint of the bundle.
        executor: The name of the executor.
        loras: What was swapped in.
    """
    return Result(
        outputs=tuple(
            Output(
                image=_picture(picture, prepared.mask),
                latents=latents,
                prompt=prompt,
                seed=None if prepared.noise is not None else seed,
            )
            for picture, latents, (prompt, seed) in zip(made.pictures, made.latents, prepared.jobs, strict=True)
        ),
        size=prepared.size,
        references=tuple(reference.placement for reference in prepared.references),
        method=prepared.method,
        steps=prepared.steps,
        guidance=prepared.guidance,
        strength=prepared.strength,
        mask=None if prepared.mask is None else prepared.mask.describe(),
        loras=loras,
        tokens=prepared.tokens(manifest.model),
        milliseconds=clock.milliseconds,
        step_milliseconds=tuple(clock.step_milliseconds),
        bundle=bundle,
        executor=executor,
        fused_loras=manifest.loras,
    )


def _picture(picture: NDArray[np.uint8], mask: PreparedMask | None) -> Image.Image:
    """Return a picture that was decoded: as it is, or what a mask lets through of it, on the picture that it is of."""
    made = Image.fromarray(picture)
    if mask is None:
        return made
    return Paste(original=mask.original, alpha=mask.alpha, placement=mask.placement, box=mask.box).apply(made)
