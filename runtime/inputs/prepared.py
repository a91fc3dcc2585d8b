"""Makes a request ready for one model: defaults are filled in, references are read and brought to their sizes."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from math import prod
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...engine.bundle.manifest import ModelRecord
from ...engine.errors import RequestError
from ...engine.sizes import Grid, Size, squarest, token_grid
from .masking import Masking, PreparedMask, prepare_mask
from .pictures import Picture, read_picture
from .placement import Fit, nearest_size, place
from .references import Latents, Reference, ReferenceMethod, ReferenceSource, stitch
from .request import Request
from .schedules import Solver

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Counts the tokens that every step of a request attends over: those of the target, each reference and the text."""

    target: int
    references: tuple[int, ...]
    text: int

    @property
    def total(self) -> int:
        return self.target + sum(self.references) + self.text

    def describe(self) -> str:
        """Say the counts and their sum in words."""
        parts = [f"{self.target:,} of the picture", *(f"{one:,} of a reference" for one in self.references)]
        return f"{' + '.join(parts)} + {self.text:,} of text = {self.total:,} tokens"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedRequest:
    """Holds all that a request is made of, for one model.

    `noise` (b, n, channels) float32 replaces what the seeds would draw. Of a schedule of `steps` the last `num_steps`
    are taken: all but at less than full strength. `sigmas` are the noise levels of all steps where they are not the
    model's own, `step_mask` says which of the steps that are taken are whole, None if all are.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    size: Size
    steps: int
    guidance: float
    references: tuple[Reference, ...] = ()
    method: ReferenceMethod = ReferenceMethod.OFFSET
    noise: NDArray[np.float32] | None = None
    strength: float = 1.0
    mask: PreparedMask | None = None
    solver: Solver = Solver.EULER
    sigmas: tuple[float, ...] | None = None
    step_mask: tuple[bool, ...] | None = None

    @property
    def jobs(self) -> tuple[tuple[str, int], ...]:
        """The (prompt, seed) of each picture, prompts outermost."""
        return tuple((prompt, seed) for prompt in self.prompts for seed in self.seeds)

    @property
    def grid(self) -> Grid:
        return token_grid(self.size)

    @property
    def begins_late(self) -> bool:
        """True if the flow begins with the first reference's latents, noised, and not with noise alone."""
        return self.strength < 1 or (self.sigmas is not None and self.sigmas[0] < 1)

    @property
    def num_steps(self) -> int:
        """The steps that are taken, as diffusers' image to image counts them."""
        return self.steps - int(max(self.steps - min(self.steps * self.strength, self.steps), 0))

    def tokens(self, model: ModelRecord) -> Tokens:
        """Return the counts of tokens, with a model's length of text."""
        references = tuple(prod(reference.grid) for reference in self.references)
        return Tokens(target=prod(self.grid), references=references, text=model.dims.text_length)


def prepare(request: Request, model: ModelRecord) -> PreparedRequest:
    """Fill in a model's defaults, draw a seed if none is given, and read and place references and mask.

    Raises:
        ImageError: A picture cannot be read.
        RequestError: Noise is of another shape than the pictures', latents are of another model, a mask does not fit.
    """
    sampling = request.sampling
    sigmas = cast("tuple[float, ...] | None", sampling.sigmas)
    mask, references = _references(request, model)
    default = references[0].placement.size if references else squarest(model.sizes)
    prepared = PreparedRequest(
        prompts=request.prompts,
        seeds=sampling.seeds or (secrets.randbits(32),),
        size=default if sampling.size is None else sampling.size,
        steps=len(sigmas) if sigmas else model.flow.steps if sampling.steps is None else sampling.steps,
        guidance=model.flow.guidance if sampling.guidance is None else sampling.guidance,
        references=references,
        method=cast(ReferenceMethod, request.references),
        noise=sampling.noise,
        strength=sampling.strength,
        mask=mask,
        solver=cast(Solver, sampling.solver),
        sigmas=sigmas,
        step_mask=cast("tuple[bool, ...] | None", sampling.step_mask),
    )
    _check(prepared, model)
    _check_mask(prepared)
    if len(references) > 1:
        logger.info("%s", prepared.tokens(model).describe())
    return prepared


def _check(prepared: PreparedRequest, model: ModelRecord) -> None:
    wanted = (len(prepared.jobs), prod(prepared.grid), model.dims.channels)
    if prepared.noise is not None and prepared.noise.shape != wanted:
        raise RequestError(f"noise must be of shape {wanted}, this is {prepared.noise.shape}")
    if (prepared.mask is not None or prepared.begins_late) and prepared.grid != prepared.references[0].grid:
        (width, height), (own_width, own_height) = prepared.size, prepared.references[0].placement.size
        raise RequestError(
            f"with a mask, or a strength below 1 or sigmas that begin there, the picture has its reference's size "
            f"{own_width}x{own_height}, not {width}x{height}; leave the size out"
        )
    if round(prepared.steps * prepared.strength, 2) < 1:  # diffusers would take one step, from noise alone if of one
        raise RequestError(
            f"a strength of {prepared.strength:g} leaves less than one of {prepared.steps} steps; give at least "
            f"{1 / prepared.steps:.3g}"
        )


def _check_mask(prepared: PreparedRequest) -> None:
    steps, mask = prepared.num_steps, prepared.step_mask
    if mask is not None and len(mask) != steps:
        late = f", of {prepared.steps} at a strength of {prepared.strength:g}" if steps < prepared.steps else ""
        raise RequestError(f"step_mask is of {len(mask)} steps, and this request takes {steps}{late}")


def _references(request: Request, model: ModelRecord) -> tuple[PreparedMask | None, tuple[Reference, ...]]:
    """Return a request's references at their sizes, and what its mask says of the first of them."""
    sources = request.sources
    if request.references is ReferenceMethod.STITCH and len(sources) > 1:
        sources = (_stitched(sources, masked=request.mask is not None),)
    fit, mask = cast(Fit, request.fit), None
    references: list[Reference] = []
    for source in sources:
        if request.mask is not None and not references:
            mask, reference = prepare_mask(source, cast(Masking, request.mask), fit, model)
        else:
            reference = _reference(source, fit, model)
        logger.info("reference %s", reference.placement.describe())
        references.append(reference)
    return mask, tuple(references)


def _stitched(sources: tuple[ReferenceSource, ...], *, masked: bool) -> Image.Image:
    if masked or any(isinstance(source, Latents) for source in sources):
        raise RequestError(
            "references are stitched as pictures, without a mask; latents and masked ones go with offset or index"
        )
    return stitch([read_picture(cast(Picture, source)) for source in sources])


def _reference(source: ReferenceSource, fit: Fit, model: ModelRecord) -> Reference:
    if isinstance(source, Latents):
        return Reference.carried(source, model.dims.channels)
    original = read_picture(source)
    placed, placement = place(original, nearest_size(original.size, model.sizes), fit)
    return Reference(pixels=np.asarray(placed), placement=placement)
