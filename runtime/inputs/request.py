"""Defines what a caller asks for: a prompt, a picture to edit, and how the answer is sampled."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from ...engine.bundle.manifest import FlowRecord
from ...engine.components import STEP_CACHE
from ...engine.errors import RequestError
from ...engine.lora.choice import LoraChoice, lora_choices
from ...engine.sizes import Size, check_size
from .choices import parse_choice
from .masking import Masking
from .masks import MaskSource
from .placement import Fit, parse_fit
from .prompts import check_prompt
from .references import ReferenceMethod, ReferenceSource, each_source, parse_method
from .schedules import MAX_STEPS, Solver, check_sigmas, check_step_mask
from .sources import file_of

MAX_SEED = 2**64 - 1
MAX_PICTURES = 1000
"""The most pictures of a request, whose noise and tables are made before its first step."""
MAX_GUIDANCE = 1000
"""The largest guidance.

It is far beyond what a model was trained with, and far from where float32 overflows in its embedding.
"""


class ScheduleKeywords(TypedDict, total=False):
    """Types those keywords of `Sampling` that say which steps are taken, and how."""

    steps: int | None
    solver: Solver | str
    sigmas: Sequence[float] | NDArray[np.float32] | None
    step_mask: Sequence[bool | int] | None


class SamplingKeywords(ScheduleKeywords, total=False):
    """Types the keywords of `Sampling` for `Kontext.edit` and `Kontext.generate`, which pass them on."""

    guidance: float | None
    seed: int | Sequence[int] | None
    size: Size | None
    noise: NDArray[np.float32] | None
    strength: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Says how pictures are drawn from the model. What is None is the bundle's default.

    NumPy's numbers are kept as Python's, so that a request can be written down.

    Attributes:
        steps: The number of steps of the flow, 1 to 1000. The default of FLUX.1 Kontext [dev] is 28.
        guidance: The embedded guidance strength, 0 to 1000. The default of FLUX.1 Kontext [dev] is 2.5.
        seed: One seed or several, each 0 to 2^64 - 1. One is drawn and reported if there is none. The noise of a seed
            is what diffusers draws with a CPU generator.
        size: The (width, height) of the output in pixels, multiples of 16. By default that of the reference, brought to
            the nearest trained size; without a reference the squarest trained size.
        noise: Packed noise (b, n, channels) float32 in the place of what the seeds would draw, for b pictures of n
            tokens.
        strength: How much of the first reference gives way, above 0 to 1. Below 1 the flow begins with the reference's
            latents, noised to where that share of the steps is left, and only those steps are taken.
        solver: How a step uses the velocity of the step before: "euler" does not, "ab2" is of second order.
        sigmas: The noise levels of the steps in the place of the model's own, which fall from 1 to above 0; after the
            last comes 0, which may be written. They are taken as they are, without the model's shift. If they begin
            below 1 the flow begins as at less than full strength: with the first reference's latents, noised to there.
        step_mask: For each step that is taken, 1 if it is computed whole and 0 if it is cached: of its blocks only the
            first is computed, and the others add what they added in the last whole step. The first is whole. None for
            whole steps alone.

    Raises:
        RequestError: One of these is out of range, `steps` counts other steps than `sigmas`, or there are `sigmas` and
            a `strength` below 1.
    """

    steps: int | None = None
    guidance: float | None = None
    seed: int | Sequence[int] | None = None
    size: Size | None = None
    noise: NDArray[np.float32] | None = field(default=None, repr=False)
    strength: float = 1.0
    solver: Solver | str = Solver.EULER
    sigmas: Sequence[float] | NDArray[np.float32] | None = None
    step_mask: Sequence[bool | int] | None = None

    def __post_init__(self) -> None:
        if self.steps is not None:
            if not is_whole(self.steps) or not 1 <= self.steps <= MAX_STEPS:
                raise RequestError(f"steps must be a whole number from 1 to {MAX_STEPS}, not {self.steps!r}")
            object.__setattr__(self, "steps", int(self.steps))
        if self.guidance is not None:
            if not isinstance(self.guidance, numbers.Real) or not 0 <= self.guidance <= MAX_GUIDANCE:
                raise RequestError(f"guidance must be a number from 0 to {MAX_GUIDANCE}, not {self.guidance!r}")
            object.__setattr__(self, "guidance", float(self.guidance))
        if self.seed is not None:
            seeds = _each(self.seed)
            for seed in seeds:
                if not is_whole(seed) or not 0 <= seed <= MAX_SEED:
                    raise RequestError(f"a seed must be a whole number from 0 to 2^64 - 1, not {seed!r}")
            object.__setattr__(self, "seed", int(seeds[0]) if len(seeds) == 1 else tuple(map(int, seeds)))
        if self.size is not None:
            object.__setattr__(self, "size", check_size(self.size))
        if self.noise is not None and (not isinstance(self.noise, np.ndarray) or self.noise.dtype.kind not in "fiu"):
            found = getattr(self.noise, "dtype", type(self.noise).__name__)
            raise RequestError(f"noise must be a NumPy array of float32, not {found}")
        if isinstance(self.strength, bool) or not isinstance(self.strength, numbers.Real) or not 0 < self.strength <= 1:
            raise RequestError(f"strength must be a number above 0, up to 1, not {self.strength!r}")
        object.__setattr__(self, "strength", float(self.strength))
        object.__setattr__(self, "solver", parse_choice(Solver, "solver", self.solver))
        if self.sigmas is not None:
            self._take_sigmas()
        if self.step_mask is not None:
            object.__setattr__(self, "step_mask", check_step_mask(self.step_mask))

    def _take_sigmas(self) -> None:
        sigmas = check_sigmas(self.sigmas)
        object.__setattr__(self, "sigmas", sigmas)
        if self.steps not in (None, len(sigmas)):
            raise RequestError(f"{len(sigmas)} sigmas make {len(sigmas)} steps, not {self.steps}; leave the steps out")
        if self.strength < 1:
            raise RequestError(
                "sigmas say by their first where the flow begins, so there is no strength beside them; leave one out"
            )

    @property
    def begins_late(self) -> bool:
        """True if the flow begins below a noise level of 1, so with the first reference's latents."""
        return self.strength < 1 or (self.sigmas is not None and self.sigmas[0] < 1)

    @property
    def features(self) -> tuple[str, ...]:
        """The features that a bundle needs for it, of `manifest.FEATURES`."""
        cached = self.step_mask is not None and not all(self.step_mask)
        return (*(("velocity",) if self.solver is Solver.AB2 else ()), *((STEP_CACHE,) if cached else ()))

    def recorded(self, flow: FlowRecord) -> dict[str, Any]:
        """Return how answers are sampled but for seeds, noise and strength, as JSON holds it.

        Args:
            flow: The bundle's own, whose steps and guidance stand for what was not given.
        """
        steps = flow.steps if self.steps is None else self.steps
        return {
            "steps": steps if self.sigmas is None else len(self.sigmas),
            "guidance": flow.guidance if self.guidance is None else self.guidance,
            "solver": Solver(self.solver).value,
            "sigmas": None if self.sigmas is None else [float(sigma) for sigma in self.sigmas],
            "step_mask": None if self.step_mask is None else [int(whole) for whole in self.step_mask],
            "size": None if self.size is None else list(self.size),
        }

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that were given, in a tuple."""
        return () if self.seed is None else _each(self.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Asks for one edit, or without `image` for one picture from text, of every combination of prompts and seeds.

    Attributes:
        prompt: An instruction, or several. Beyond the 512 tokens of T5 it is cut, with a PromptCutWarning.
        image: The reference: a picture as `Picture` says, or the `Latents` of an earlier result; a list of up to 16 of
            them, of which the first is edited; None for text to image.
        sampling: How the answer is sampled.
        fit: How each reference is brought to its trained size: "resize", "pad" or "crop".
        references: How several references lie beside each other: "offset", "index" or "stitch".
        loras: The LoRAs that are swapped in for it, files or (file, scale) of each; an empty list for none, None for
            those that are set (`Kontext.set_lora`).
        mask: What of the first reference is edited; None for all of it. See `Masking`.

    Raises:
        RequestError: A prompt is empty or no text, a word is none of those, there are more than 1000 pictures or 16
            references, or there is a mask and nothing to edit.
        ImageError: `image` is of a type that no picture can be read from.
        OptionError: A LoRA's scale is none.
    """

    prompt: str | Sequence[str]
    image: ReferenceSource | Sequence[ReferenceSource] | None = None
    sampling: Sampling = Sampling()
    fit: Fit | str = Fit.RESIZE
    references: ReferenceMethod | str = ReferenceMethod.OFFSET
    mask: Masking | MaskSource | None = None
    loras: Sequence[LoraChoice | tuple[Path | str, float] | Path | str] | None = None

    def __post_init__(self) -> None:
        prompts = _each(self.prompt)
        num_seeds = _num_seeds(self.sampling)
        if not prompts or not num_seeds:
            raise RequestError(f"a request needs a prompt and a seed at least, not {len(prompts)} and {num_seeds}")
        _check_count(len(prompts) * num_seeds)
        for prompt in prompts:
            check_prompt(prompt)
        object.__setattr__(self, "prompt", prompts[0] if len(prompts) == 1 else prompts)
        if self.loras is not None:
            object.__setattr__(self, "loras", lora_choices(self.loras))
        object.__setattr__(self, "fit", parse_fit(self.fit))
        object.__setattr__(self, "references", parse_method(self.references))
        sources = each_source(self.image)
        if self.mask is not None and not isinstance(self.mask, Masking):
            object.__setattr__(self, "mask", Masking(mask=self.mask))
        late = "a strength below 1" if self.sampling.sigmas is None else "a list of sigmas that begins below 1"
        for what, given in (("a mask", self.mask is not None), (late, self.sampling.begins_late)):
            if given and not sources:
                raise RequestError(f"{what} is about a picture that is edited, and text to image has none")

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts, in a tuple."""
        return _each(self.prompt)

    @property
    def features(self) -> tuple[str, ...]:
        """The features that a bundle needs for it, of `manifest.FEATURES`."""
        return (*(("masks",) if self.mask is not None else ()), *self.sampling.features)

    @property
    def chosen_loras(self) -> tuple[LoraChoice, ...] | None:
        """The LoRAs that are named for it, None if it takes those that are set."""
        return None if self.loras is None else lora_choices(self.loras)

    @property
    def sources(self) -> tuple[ReferenceSource, ...]:
        """The pictures and latents that the references are made from, in a tuple."""
        return each_source(self.image)

    @property
    def files(self) -> tuple[Path, ...]:
        """The absolute paths that its references and its mask are read from; none for what is in memory."""
        mask = self.mask.mask if isinstance(self.mask, Masking) else self.mask
        found = (file_of(source) for source in (*self.sources, mask))
        return tuple(dict.fromkeys(file for file in found if file is not None))

    @property
    def num_pictures(self) -> int:
        """The number of pictures that it makes."""
        return len(self.prompts) * _num_seeds(self.sampling)


def is_whole(value: object) -> bool:
    """Return whether a value is a whole number of Python's or NumPy's, and not a bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _num_seeds(sampling: Sampling) -> int:
    return 1 if sampling.seed is None else len(sampling.seeds)  # one is drawn


def _check_count(pictures: int) -> None:
    if pictures > MAX_PICTURES:
        raise RequestError(f"a request makes up to {MAX_PICTURES} pictures, not {pictures:,}; ask for them in several")


def _each(values: Any) -> tuple[Any, ...]:
    """Return the values of a sequence or an array, counted before they are made, or the one value."""
    if isinstance(values, np.ndarray):
        values = np.atleast_1d(values)
    elif isinstance(values, str) or not isinstance(values, Sequence):
        return (values,)
    _check_count(len(values))
    return tuple(values)
