"""Makes a result of what the flow computed, for the request that it computed."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...engine.bundle.bundle import Bundle
from ...engine.bundle.manifest import LoraRecord
from ...engine.progress import Progress
from ..flow.clock import Clock
from ..flow.previews import Previews
from ..flow.run import Generated, OnStep, Watch
from ..inputs.prepared import PreparedRequest
from .paste import finished_picture
from .result import Output, Result


def result_of(
    prepared: PreparedRequest,
    made: Generated,
    clock: Clock,
    bundle: Bundle,
    *,
    executor: str,
    loras: tuple[LoraRecord, ...],
    files: tuple[Path, ...],
) -> Result:
    """Return the result of a request.

    Args:
        prepared: The request.
        made: The pictures and latents that were computed.
        clock: The times that it took.
        bundle: The bundle that ran it.
        executor: The name of the executor.
        loras: What was swapped in.
        files: The files that references and mask were read from.
    """
    return Result(
        outputs=tuple(
            Output(
                image=finished_picture(picture, prepared.mask),
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
        solver=prepared.solver,
        sigmas=prepared.sigmas,
        step_mask=prepared.step_mask,
        mask=None if prepared.mask is None else prepared.mask.describe(),
        loras=loras,
        tokens=prepared.tokens(bundle.manifest.model),
        milliseconds=clock.milliseconds,
        step_milliseconds=tuple(clock.step_milliseconds),
        bundle=bundle.fingerprint,
        executor=executor,
        fused_loras=bundle.manifest.loras,
        files=files,
    )


def watching(
    prepared: PreparedRequest,
    previews: Previews | None,
    *,
    on_step: OnStep | None,
    cancel: threading.Event | None,
    every_step: bool,
    progress: Progress | None,
) -> Watch:
    """Return what watches a request; previews are shown as its pictures are: as decoded, or through its mask.

    Args:
        prepared: The request.
        previews: How many pictures of what is to come are shown, and to whom, or None.
        on_step: A function that is called after each step, or None.
        cancel: An event that ends the request between two steps, or None.
        every_step: Whether every component and step is run and checked by itself.
        progress: What is told of each phase, or None.
    """

    def show(number: int, pictures: NDArray[np.uint8]) -> None:
        assert previews is not None
        previews.show(number, tuple(finished_picture(picture, prepared.mask) for picture in pictures))

    return Watch(
        on_step=on_step,
        cancel=cancel,
        every_step=every_step,
        previews=0 if previews is None else previews.count,
        show=None if previews is None else show,
        progress=progress,
    )
