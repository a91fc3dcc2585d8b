"""Says which tensors of a request are divided among ranks, and what each rank is given of a request and gives of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...engine.bundle.bundle import Bundle
from ...engine.components import Runs
from .shares import Share
from .tensors import ENCODED_TEXT, RequestShape, TensorSpec, image_name, reference_name, request_tensors
from .workspace import Array

WHOLE = {"text_tokens": "whole_text_tokens", "reference_tokens": "whole_reference_tokens", "clean": "whole_clean"}
"""The tensors that every rank computes whole, and then takes its part of: its name, and that of the whole."""
WHOLE_LATENTS = "whole_latents"
"""The tensor that the latents of all ranks are put together in."""
TEXT_RANK = 0
"""The rank that encodes text: no other needs the memory that T5 takes."""
_TARGET = frozenset(
    {
        *("latents_even", "latents_odd", "first_latents", "velocity_even", "velocity_odd", "zeros", "residual"),
        *("keep", "clean", "noise"),
    }
)
_TABLES = frozenset({"cos", "sin"})
_PARTS: Mapping[str, Callable[[Share], slice]] = {
    # the tokens that a rank has of a tensor; of a table it has those of all three parts
    **dict.fromkeys(_TARGET, lambda share: share.target),
    "text_tokens": lambda share: share.text,
    "reference_tokens": lambda share: share.reference,
}


def reference_rank(reference: int, size: int) -> int:
    """Return the rank that encodes a reference: one that does not encode text meanwhile."""
    return 1 + reference % (size - 1)


def never_run(rank: int) -> frozenset[Runs]:
    """Return how often components run that a rank never runs: references' on the one that encodes text, and text's."""
    return frozenset({Runs.REFERENCE if rank == TEXT_RANK else Runs.PROMPT})


def picture_rank(picture: int, size: int) -> int:
    """Return the rank that decodes a picture."""
    return picture % size


def workspace_tensors(bundle: Bundle, shape: RequestShape) -> dict[str, TensorSpec]:
    """Return every tensor of a request as a workspace holds it, by name.

    Where several devices compute the request it is a rank's part of what is divided, and beside it what is computed or
    decoded whole.
    """
    tensors, share = request_tensors(bundle, shape), shape.share
    if share is None:
        return tensors
    whole = {WHOLE[name]: spec for name, spec in tensors.items() if name in WHOLE}
    whole[WHOLE_LATENTS] = tensors["latents_even"]
    own = {
        name: _with_tokens(spec, name, _own_tokens(name, share)) if _is_divided(name) else spec
        for name, spec in tensors.items()
    }
    return own | whole


def _is_divided(name: str) -> bool:
    return name in _PARTS or name in _TABLES


def _own_tokens(name: str, share: Share) -> int:
    """Return how many tokens of a divided tensor a rank has."""
    if name in _TABLES:
        return share.shares.joint[share.rank]
    part = _PARTS[name](share)
    return part.stop - part.start


def _with_tokens(spec: TensorSpec, name: str, count: int) -> TensorSpec:
    axis = _axis(name)
    return replace(spec, shape=(*spec.shape[:axis], count, *spec.shape[axis + 1 :]))


def _axis(name: str) -> int:
    """Return the axis of tokens: tables have no pictures before it."""
    return 0 if name in _TABLES else 1


def own_inputs(inputs: Mapping[str, Array], share: Share, *, text_length: int, num_references: int) -> dict[str, Array]:
    """Return what a rank is given of a request's inputs.

    Pixels are given to the rank that encodes them, and what was encoded earlier to the one that would have done so.

    Args:
        inputs: Those of the whole request.
        share: The tokens of the rank.
        text_length: The number of text tokens, which the joint sequence begins with.
        num_references: The number of references.
    """
    size = share.shares.size
    names = [(image_name(one), reference_name(one)) for one in range(num_references)]
    others = {name for one, pair in enumerate(names) if reference_rank(one, size) != share.rank for name in pair}
    if share.rank != TEXT_RANK:
        others.update(ENCODED_TEXT)
    joint = (
        share.text,
        _moved(share.target, text_length),
        _moved(share.reference, text_length + sum(share.shares.target)),
    )
    given: dict[str, Array] = {}
    for name, array in inputs.items():
        if name in _TABLES:
            given[name] = np.concatenate([array[part] for part in joint])
        elif name in _PARTS:
            given[name] = np.ascontiguousarray(array[:, _PARTS[name](share)])
        elif name not in others:
            given[name] = array
    return given


def _moved(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


def givers(name: str, batch: int, num_references: int, size: int) -> tuple[int, ...]:
    """Return the ranks that must give a tensor, so that `whole_output` can put it together."""
    if _is_divided(name):
        return tuple(range(size))
    if name in ("pictures", "picture_means"):
        return tuple(sorted({picture_rank(picture, size) for picture in range(batch)}))
    for number in range(num_references):
        if name in (reference_name(number), image_name(number)):
            return (reference_rank(number, size),)
    return (TEXT_RANK,)


def whole_output(name: str, given: Mapping[int, Array], size: int) -> Array:
    """Return a tensor of a request from what its givers gave, by rank."""
    assert name not in _TABLES, "they are given, not made, and ranks' rows do not lie one after another"
    if _is_divided(name):
        return np.concatenate([given[rank] for rank in range(size)], axis=_axis(name))
    if name in ("pictures", "picture_means"):
        rows = len(next(iter(given.values())))
        return np.stack([given[picture_rank(picture, size)][picture] for picture in range(rows)])
    return next(iter(given.values()))


def given_by(rank: int, names: Iterable[str], batch: int, num_references: int, size: int) -> tuple[str, ...]:
    """Return the tensors, of those asked for, that a rank gives."""
    return tuple(name for name in names if rank in givers(name, batch, num_references, size))


def slowest(milliseconds: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Return the milliseconds of each stage on the rank that took longest for all of them.

    Stages that ranks run at the same time would add up to more than the request takes.
    """
    return tuple(max(milliseconds, key=sum))
