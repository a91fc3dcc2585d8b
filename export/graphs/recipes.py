"""Defines recipes: which matrix products of a model are quantized, to what, and which are left alone and why."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Union

import msgspec

from ...engine.bundle.manifest import QuantizationRecord
from ...engine.components import COMPONENTS, KNOWN_COMPONENTS, Component, Quantized
from ...engine.errors import QuantizationError

CALIBRATED: Component = next(one for one in COMPONENTS.values() if one.quantized is Quantized.PRODUCTS)
"""The component whose blocks a recipe quantizes, and whose activations are calibrated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fp8:
    """Describes E4M3 weights and activations.

    Activations have one scale per tensor, weights one per output channel: in the engine it is multiplied in the kernel
    that adds the bias, so it costs none of its own.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Fp8Weights:
    """Describes E4M3 weights, one scale per output channel; products are computed in the type of their activations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nvfp4:
    """Describes NVFP4 weights and activations.

    Activations have a calibrated tensor scale and block scales computed as they come. `rank` > 0 adds SVDQuant's
    branch: the `rank` largest singular components of a weight stay in the transformer's own type, beside the product,
    and only what is left is rounded. Source: Li et al., SVDQuant (arXiv 2411.05007).
    """

    rank: int = 0


LinearFormat = Union[Fp8, Fp8Weights, Nvfp4]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Names layers that no recipe quantizes, and says why."""

    pattern: str
    reason: str


KEPT = (
    Kept(pattern="conditioner.*", reason="runs once a request, and an error in its modulation scales every token"),
    Kept(pattern="clip.*", reason="small, and runs once a prompt"),
    Kept(pattern="vae_encoder.*", reason="runs once a picture, and its errors show in pixels"),
    Kept(pattern="vae_decoder.*", reason="runs once a picture, and its errors show in pixels"),
    Kept(pattern="cached_denoiser.*", reason="small, and takes the place of whole steps"),
    Kept(pattern="denoiser.x_embedder", reason="64 inputs a token: nothing to gain, and all of the latents pass here"),
    Kept(pattern="denoiser.proj_out", reason="the final layer: its error goes into the latents as it is"),
)


AS_STORED = "as stored"
"""The recipe's name in the manifest of a bundle that nobody quantized."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Describes how a model is quantized.

    Attributes:
        name: What people call it.
        blocks: The format of the linear layers in the denoiser's blocks, None for the type they are stored in.
        fp8_attention: Both products of the denoiser's attention in FP8.
        t5: The format of T5's linear layers.
        keep: Patterns (`*` for anything) of further layers to leave alone, matched from the start of
            "component.layer": "denoiser.single_transformer_blocks.37.*".
        percentile: Activations beyond this percentile are clipped; None takes the largest ever seen.

    Raises:
        QuantizationError: The percentile is not from 50 to below 100.
    """

    name: str
    blocks: Fp8 | Nvfp4 | None = None
    fp8_attention: bool = False
    t5: Fp8Weights | None = None
    keep: tuple[str, ...] = ()
    percentile: float | None = None

    def __post_init__(self) -> None:
        if self.percentile is not None and not 50 <= self.percentile < 100:
            raise QuantizationError(f"a percentile from 50 to below 100 is possible, not {self.percentile}")

    @property
    def sha256(self) -> str:
        """The hash of everything that decides what is quantized and how; not of the name."""
        return hashlib.sha256(msgspec.json.encode(replace(self, name=""), order="deterministic")).hexdigest()

    @property
    def components(self) -> tuple[str, ...]:
        """The components that the recipe changes."""
        changes = {Quantized.PRODUCTS: self.calibrated, Quantized.WEIGHTS: self.t5 is not None}
        return tuple(
            name
            for kind, changed in changes.items()
            for name, component in COMPONENTS.items()
            if changed and component.quantized is kind
        )

    @property
    def calibrated(self) -> bool:
        """True if it quantizes activations, and so needs their ranges."""
        return self.blocks is not None or self.fp8_attention

    @property
    def formats(self) -> tuple[str, ...]:
        """The number types that it multiplies in: "fp8", "nvfp4"."""
        made = {"fp8": isinstance(self.blocks, Fp8) or self.fp8_attention, "nvfp4": isinstance(self.blocks, Nvfp4)}
        return tuple(name for name, there in made.items() if there)

    def kept(self, component: str, layer: str) -> bool:
        name = f"{component}.{layer}"
        return any(matches(pattern, name) for pattern in (*self.keep, *(kept.pattern for kept in KEPT)))

    def format_of(self, component: str, layer: str) -> LinearFormat | None:
        """Return what a linear layer becomes; None leaves it as it is."""
        if self.kept(component, layer):
            return None
        formats = {Quantized.PRODUCTS: self.blocks, Quantized.WEIGHTS: self.t5}
        return formats.get(KNOWN_COMPONENTS[component].quantized)

    def attention_is_fp8(self, component: str, layer: str) -> bool:
        return component == CALIBRATED.name and self.fp8_attention and not self.kept(component, layer)


class RecipeName(str, Enum):
    """Names the recipes that quantize something."""

    FP8 = "fp8"
    FP8_ATTENTION = "fp8-attention"
    NVFP4 = "nvfp4"
    NVFP4_SVD = "nvfp4-svd"


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="bf16"),
        Recipe(name="fp8", blocks=Fp8()),
        Recipe(name="fp8-attention", blocks=Fp8(), fp8_attention=True),
        Recipe(name="nvfp4", blocks=Nvfp4()),
        Recipe(name="nvfp4-svd", blocks=Nvfp4(rank=32)),
    )
}


def matches(pattern: str, name: str) -> bool:
    """Return whether a name is what `pattern` says, or lies below it: "denoiser.a" matches "denoiser.a.b"."""
    wanted = ".*".join(map(re.escape, pattern.split("*")))
    return re.fullmatch(f"{wanted}(\\..*)?", name) is not None


def make_recipe(name: str, *, keep: tuple[str, ...] = (), percentile: float | None = None, t5: bool = False) -> Recipe:
    """Return a recipe by name with a user's changes.

    Args:
        name: One of `RECIPES`.
        keep: Patterns of layers to leave alone; they may leave the component out, and then mean the denoiser.
        percentile: The percentile beyond which activations are clipped.
        t5: Whether T5's weights become FP8, too.

    Raises:
        QuantizationError: There is no such recipe; the message lists the names.
    """
    if name not in RECIPES:
        raise QuantizationError(f"a recipe is one of {', '.join(RECIPES)}, not {name!r}")
    named = tuple(f"{name}." for name, one in COMPONENTS.items() if one.quantized is not Quantized.NOTHING)
    full = tuple(pattern if pattern.startswith(named) else f"{CALIBRATED.name}.{pattern}" for pattern in keep)
    return replace(RECIPES[name], keep=full, percentile=percentile, t5=Fp8Weights() if t5 else None)


def reads_fp8_alone(record: QuantizationRecord | None) -> bool:
    """Return whether a graph can be quantized: nothing is in it, or nothing but FP8 weights as they were stored."""
    return record is None or (record.recipe == AS_STORED and set(record.products) <= {"fp8_weights"})
