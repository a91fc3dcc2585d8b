"""Holds the constants of a model that appear in the shapes of components."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .components import DYNAMIC_DIMS
from .documents import Extent


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDims:
    """Holds the constants of a model that appear in component shapes.

    Attributes:
        clip_length: The tokens of a prompt that CLIP reads.
        text_length: The tokens of a prompt that T5 reads.
        text_width: The values of one of T5's outputs.
        pooled_width: The values of CLIP's output for a prompt.
        channels: The values of a latent token.
        hidden: The values of a token between the transformer's blocks.
        vectors: The modulation vectors that the conditioner computes for a step.
        rope_width: The cosines, and as many sines, of a token's rotary embedding.
        rgb: The values of a pixel.
        one: The extent of an input that is one value.
        two: The extent of an input that is two values.
    """

    clip_length: Extent
    text_length: Extent
    text_width: Extent
    pooled_width: Extent
    channels: Extent
    hidden: Extent
    vectors: Extent
    rope_width: Extent
    rgb: Extent = 3
    one: Extent = 1
    two: Extent = 2

    def resolve(self, dims: Iterable[str], **dynamic: int) -> tuple[int | str, ...]:
        """Return a port's shape: constants and given dimensions as numbers, other dynamic ones by their names.

        Args:
            dims: The port's dimensions, as in `Port`.
            **dynamic: The extents of dynamic dimensions, by name.
        """
        return tuple(self._resolve_one(dim, dynamic) for dim in dims)

    def _resolve_one(self, dim: str, dynamic: Mapping[str, int]) -> int | str:
        factor, _, name = dim.rpartition("*")
        if name not in DYNAMIC_DIMS:
            return int(name) if name.isdecimal() else getattr(self, name)
        if name not in dynamic:
            return dim
        return dynamic[name] * int(factor or 1)
