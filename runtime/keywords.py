"""Turns keywords of edits, generations and turns into a request, and what `Kontext.run` takes beside it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from ..engine.lora.choice import LoraChoice
from ..engine.progress import Progress
from .flow.previews import Previews
from .flow.run import OnStep
from .inputs.masking import Masking, MaskKeywords
from .inputs.masks import MaskSource
from .inputs.placement import Fit
from .inputs.references import ReferenceMethod, ReferenceSource
from .inputs.request import Request, Sampling, SamplingKeywords
from .turn import Carry


class WatchKeywords(TypedDict, total=False):
    """Types the keywords of `Kontext.run`."""

    on_step: OnStep | None
    cancel: threading.Event | None
    debug_nan: bool
    previews: Previews | None
    progress: Progress | None


class GenerateKeywords(SamplingKeywords, WatchKeywords, total=False):
    """Types the keywords of `Kontext.generate`: those of `Sampling` and of `Kontext.run`, and `Request.loras`."""

    loras: Sequence[LoraChoice | tuple[Path | str, float] | Path | str] | None


class EditKeywords(GenerateKeywords, MaskKeywords, total=False):
    """Types the keywords of `Kontext.edit`: those of `Kontext.generate`, `Request` and, for its mask, `Masking`."""

    fit: Fit | str
    references: ReferenceMethod | str
    mask: Masking | MaskSource | None


class SessionKeywords(TypedDict, total=False):
    """Types the keywords of `Session`, for those who pass them on."""

    carry: Carry | str
    fit: Fit | str
    kept_bytes: int


class TurnKeywords(EditKeywords, total=False):
    """Types the keywords of `Session.edit`: those of `Kontext.edit`, and which result is edited, and how."""

    of: int | None
    beside: Sequence[ReferenceSource]
    carry: Carry | str | None


def request_of(prompt: Any, keywords: Mapping[str, Any], **given: Any) -> tuple[Request, WatchKeywords]:
    """Return the request that keywords ask for, and the rest, which `Kontext.run` takes or refuses.

    Raises:
        RequestError: A value is out of range, or the details of a mask come without one.
        ImageError: A picture is of a type that none can be read from.
    """
    rest = dict(keywords)
    sampling = {name: rest.pop(name) for name in SamplingKeywords.__annotations__ if name in rest}
    details = {name: rest.pop(name) for name in MaskKeywords.__annotations__ if name in rest}
    own = {name: rest.pop(name) for name in ("fit", "references", "mask", "loras") if name in rest}
    if details:
        own["mask"] = Masking.of(own.get("mask"), details)
    return Request(prompt=prompt, sampling=Sampling(**sampling), **given, **own), cast(WatchKeywords, rest)
