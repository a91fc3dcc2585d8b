"""Defines the fields of requests, as clients write them, and turns them into the runtime's own."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from ..engine.errors import RequestError
from ..engine.sizes import Size, parse_size
from ..runtime.inputs.request import MAX_SEED, Sampling
from ..runtime.inputs.schedules import MAX_STEPS, parse_sigmas, parse_step_mask
from .bodies import Body
from .loras import MAX_LORAS
from .options import Limits
from .refusals import Refusal

Prompt = Annotated[str, Meta(min_length=1, max_length=32000)]
Format = Literal["png", "jpeg", "webp"]


class ImageFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Holds the fields of OpenAI's `images/edits` and `images/generations`, and this project's beside them.

    `quality`, `input_fidelity`, `moderation`, `style`, `user` and `safety_identifier` are taken and not used.
    """

    prompt: Prompt
    model: str | None = None
    n: Annotated[int, Meta(ge=1, le=10)] | None = None
    size: str | None = None
    background: Literal["transparent", "opaque", "auto"] | None = None
    output_format: Format | None = None
    output_compression: Annotated[int, Meta(ge=0, le=100)] | None = None
    response_format: Literal["b64_json", "url"] | None = None
    stream: bool | None = None
    partial_images: Annotated[int, Meta(ge=0, le=3)] | None = None
    quality: str | None = None
    input_fidelity: str | None = None
    moderation: str | None = None
    style: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    seed: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    solver: str | None = None
    sigmas: str | Annotated[list[float], Meta(max_length=MAX_STEPS + 1)] | None = None
    step_mask: str | Annotated[list[int], Meta(max_length=MAX_STEPS)] | None = None
    lora: str | Annotated[list[str], Meta(max_length=MAX_LORAS)] | None = None
    session: str | None = None
    turn: Annotated[int, Meta(ge=0)] | None = None


class BflFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Holds the fields of BFL's `flux-kontext-pro`. `prompt_upsampling` and `safety_tolerance` are not used."""

    prompt: Prompt
    input_image: str | None = None
    input_image_2: str | None = None
    input_image_3: str | None = None
    input_image_4: str | None = None
    seed: int | None = None
    aspect_ratio: str | None = None
    output_format: Literal["png", "jpeg"] | None = None
    prompt_upsampling: bool | None = None
    safety_tolerance: Annotated[int, Meta(ge=0, le=6)] | None = None
    webhook_url: str | None = None
    webhook_secret: str | None = None


Fields = TypeVar("Fields", ImageFields, BflFields)


def parse_fields(body: Body, fields: type[Fields], *, status: int = 400) -> Fields:
    """Return the fields of a body.

    Raises:
        Refusal: One is missing, unknown, of another type or out of range; it names the field.
    """
    try:
        return msgspec.convert(body.fields, fields, strict=not body.form)
    except msgspec.ValidationError as error:
        words = str(error)
        named = re.search(r"at `\$\.(\w+)|field `([^`]*)`", words)
        code = "unknown_parameter" if "unknown field" in words else "invalid_value"
        code = "missing_required_parameter" if "missing required" in words else code
        param = None if named is None else (named[1] or named[2])[:80]
        raise Refusal(words, status=status, code=code, param=param) from None


def parse_sampling(fields: ImageFields, limits: Limits) -> Sampling:
    """Return how pictures are drawn; each field is looked at by itself, so that an error names it.

    Raises:
        Refusal: One is out of range.
    """
    own = {
        "seed": ("seed", fields.seed),
        "steps": ("num_inference_steps", fields.num_inference_steps),
        "guidance": ("guidance_scale", fields.guidance_scale),
        "solver": ("solver", fields.solver),
        "sigmas": ("sigmas", _listed(fields.sigmas, "sigmas", parse_sigmas)),
        "step_mask": ("step_mask", _listed(fields.step_mask, "step_mask", parse_step_mask)),
        "size": ("size", _size(fields.size)),
    }
    for keyword, (param, value) in own.items():
        if value is not None:
            single: dict[str, Any] = {keyword: value}
            try:
                Sampling(**single)
            except RequestError as error:
                raise Refusal(str(error), param=param) from None
    given: dict[str, Any] = {keyword: value for keyword, (_, value) in own.items() if value is not None}
    try:
        sampling = Sampling(**given)
    except RequestError as error:  # steps that are not those of the sigmas
        raise Refusal(str(error), param="num_inference_steps") from None
    if sampling.steps is not None and sampling.steps > limits.steps:
        raise Refusal(f"up to {limits.steps} steps are taken here, not {sampling.steps}", param="num_inference_steps")
    if sampling.sigmas is not None and len(sampling.sigmas) > limits.steps:
        raise Refusal(f"up to {limits.steps} steps are taken here, not {len(sampling.sigmas)}", param="sigmas")
    if sampling.size is not None and sampling.size[0] * sampling.size[1] > limits.output_pixels:
        raise Refusal(f"up to {limits.output_pixels:,} pixels are made here, not {fields.size}", param="size")
    return sampling


def _size(text: str | None) -> Size | None:
    """Return the size that OpenAI's `size` names, None for the usual one."""
    if text in (None, "", "auto"):
        return None
    try:
        return parse_size(text)
    except RequestError as error:
        raise Refusal(str(error), param="size") from None


def _listed(
    given: str | Sequence[float] | None, param: str, parse: Callable[[str], Sequence[float]]
) -> Sequence[float] | None:
    """Return a list that came as such, or as text."""
    if not isinstance(given, str):
        return given
    try:
        return parse(given)
    except RequestError as error:
        raise Refusal(str(error), param=param) from None


def seeds_of(seed: int | None, count: int) -> tuple[int, ...]:
    """Return the seed of each of several pictures: the one that was given and those after it, or drawn ones."""
    if seed is None:
        return tuple(secrets.randbits(32) for _ in range(count))
    return tuple((seed + number) % (MAX_SEED + 1) for number in range(count))
