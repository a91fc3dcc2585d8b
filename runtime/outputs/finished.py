"""Makes outputs of what the flow returns."""

from __future__ import annotations

from ..flow.run import Generated
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
