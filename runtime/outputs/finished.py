"""Makes outputs and previews of what the flow returns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..flow.previews import Previews, Show
from ..flow.run import Generated
from ..inputs.masking import PreparedMask
from ..inputs.prepared import PreparedRequest
from .paste import finished
from .result import Output


def finished_outputs(made: Generated, prepared: PreparedRequest) -> tuple[Output, ...]:
    """Return a request's pictures with what made each: as they were decoded, or pasted where there is a mask."""
    return tuple(
        Output(
            image=finished(picture, prepared.mask),
            latents=latents,
            prompt=prompt,
            seed=None if prepared.noise is not None else seed,
        )
        for picture, latents, (prompt, seed) in zip(made.pictures, made.latents, prepared.jobs, strict=True)
    )


def shown(previews: Previews, mask: PreparedMask | None) -> Show:
    """Return what shows decoded previews as the result's pictures are shown: as it is, or through a mask."""

    def show(number: int, pictures: NDArray[np.uint8]) -> None:
        previews.show(number, tuple(finished(picture, mask) for picture in pictures))

    return show
