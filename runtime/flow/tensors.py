"""Describes the tensors of a request: names, shapes and types, all known before it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from ...engine.bundle.bundle import Bundle
from ...engine.components import COMPONENTS, DENOISER, STEP_CACHE, ElementType, Precision
from ...engine.errors import ExecutorError
from ...engine.sizes import Grid, squarest, token_grid
from .shares import Share


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestShape:
    """Holds what a request's tensors, and which of them stages take, depend on.

    Every one of `num_prompts` prompts is combined with every one of `num_seeds` seeds. `grid` is the rows and columns
    of target tokens, `references` those of each reference. `masked` says that a mask keeps a part of the first of them.
    `share` is there where several devices compute the request: the tokens that this one holds.
    """

    num_prompts: int
    num_seeds: int
    grid: Grid
    references: tuple[Grid, ...]
    num_steps: int
    masked: bool = False
    share: Share | None = None

    @property
    def batch(self) -> int:
        return self.num_prompts * self.num_seeds

    @property
    def num_reference_tokens(self) -> int:
        return sum(map(prod, self.references))


def usual_shape(bundle: Bundle) -> RequestShape:
    """Return the request shape that buffers are reckoned for beforehand.

    It is one edit of the squarest size, with the bundle's number of steps.
    """
    model = bundle.manifest.model
    grid = token_grid(squarest(model.sizes))
    return RequestShape(num_prompts=1, num_seeds=1, grid=grid, references=(grid,), num_steps=model.flow.steps)


ALIGNMENT = 256
"""The alignment in bytes that TensorRT asks of every input and output (NvInferRuntime.h, setTensorAddress)."""


def aligned(size_bytes: int) -> int:
    """Round a size up to the next multiple of the alignment; what is empty gets a place, too."""
    return max(1, -(-size_bytes // ALIGNMENT)) * ALIGNMENT


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Describes a tensor by its shape and its concrete element type.

    Rows that are inputs or outputs by themselves begin at aligned addresses on a device (`rows_apart`); the others are
    contiguous.
    """

    shape: tuple[int, ...]
    element_type: ElementType
    rows_apart: bool = False

    @property
    def row_bytes(self) -> int:
        """The bytes from the beginning of one row to that of the next."""
        contiguous = prod(self.shape[1:]) * self.element_type.item_bytes
        return aligned(contiguous) if self.rows_apart else contiguous

    @property
    def size_bytes(self) -> int:
        return self.shape[0] * self.row_bytes


def empty(spec: TensorSpec) -> NDArray[np.generic]:
    """Return an array of a tensor's shape and type, contiguous, with arbitrary values."""
    return np.empty(spec.shape, spec.element_type.number.numpy)


ENCODED_TEXT = ("prompt_pooled", "prompt_text")
"""The names of the tensors that the text encoders give."""


def latents_before(step: int) -> str:
    """Return the name of the tensor that a step starts from; it writes the other one. The first holds the noise."""
    return ("latents_even", "latents_odd")[step % 2]


def velocity_before(step: int) -> str:
    """Return the name of the tensor of the velocity of the step before; a step writes the other one.

    The first step has none before it: it takes `zeros`.
    """
    return ("velocity_even", "velocity_odd")[step % 2]


def image_name(reference: int) -> str:
    """Return the name of the tensor of a reference's pixels, which it is encoded from."""
    return f"image_{reference}"


def reference_name(reference: int) -> str:
    """Return the name of the tensor of a reference's latents."""
    return f"reference_{reference}"


def blends(bundle: Bundle) -> bool:
    """Return whether a bundle's denoiser weights velocities and keeps what a mask says: those of schema 2 do not."""
    return any(port.name == "velocity_weights" for port in bundle.component(DENOISER.name).inputs)


def caches(bundle: Bundle) -> bool:
    """Return whether steps of a bundle can be cached: its denoiser then gives what its blocks add."""
    return STEP_CACHE in bundle.manifest.features


def request_tensors(bundle: Bundle, shape: RequestShape) -> dict[str, TensorSpec]:
    """Return every tensor of a request, by name.

    `clip_ids`, `t5_ids`, `prompt_pooled` and `prompt_text` have one row per prompt; `image_0` and `reference_0`, and so
    on, are a reference's; `timesteps`, `step_sizes`, `velocity_weights` and `next_sigmas` have one row per step. The
    others have one row per picture, or are tables. `residual` is there if steps can be cached.
    """
    model, precision = bundle.manifest.model, transformer_precision(bundle)
    p, b, m = shape.num_prompts, shape.batch, shape.num_reference_tokens
    rows, columns = shape.grid
    n, steps = rows * columns, shape.num_steps
    dims, sizes = model.dims, {"b": b, "n": n, "m": m, "N": steps, "h": rows, "w": columns}
    sizes["s"] = dims.text_length + n + m

    clip, t5, vae_encoder, conditioner, denoiser, vae_decoder = COMPONENTS

    def port(component: str, name: str, *, rows_apart: bool = False, **other: int) -> TensorSpec:
        """Return the shape and type that the component table gives."""
        found = next(port for port in bundle.component(component).ports if port.name == name)
        extents = dims.resolve(found.dims, **(sizes | other))
        return TensorSpec(
            shape=tuple(int(extent) for extent in extents),
            element_type=found.element_type.resolve(precision),
            rows_apart=rows_apart,
        )

    latents = port(denoiser, "latents")
    tensors = {
        "clip_ids": port(clip, "input_ids", rows_apart=True, b=p),
        "t5_ids": port(t5, "input_ids", rows_apart=True, b=p),
        "prompt_pooled": port(clip, "pooled", rows_apart=True, b=p),
        "prompt_text": port(t5, "text", rows_apart=True, b=p),
        "timesteps": port(conditioner, "timesteps"),
        "guidance": port(conditioner, "guidance"),
        "pooled": port(conditioner, "pooled"),
        "text": port(conditioner, "text"),
        "references": port(conditioner, "reference"),
        "modulation": port(conditioner, "modulation"),
        "text_tokens": port(conditioner, "text_tokens"),
        "reference_tokens": port(conditioner, "reference_tokens"),
        "cos": port(denoiser, "cos"),
        "sin": port(denoiser, "sin"),
        "step_sizes": TensorSpec(shape=(steps, 1), element_type=ElementType.FLOAT32, rows_apart=True),
        "latents_even": latents,
        "latents_odd": latents,
        "first_latents": latents,
        "pictures": port(vae_decoder, "image", rows_apart=True),
        "picture_means": port(vae_decoder, "mean", rows_apart=True),
    }
    assert blends(bundle) or not shape.masked, "the bundle was not asked for its masks"
    if blends(bundle):
        tensors["velocity_weights"] = TensorSpec(shape=(steps, 2), element_type=ElementType.FLOAT32, rows_apart=True)
        tensors["next_sigmas"] = tensors["step_sizes"]
        tensors |= dict.fromkeys(("velocity_even", "velocity_odd", "zeros"), latents)
        if shape.masked:
            tensors |= dict.fromkeys(("keep", "clean", "noise"), latents)
    if caches(bundle):
        tensors["residual"] = port(denoiser, "residual")
    for number, (height, width) in enumerate(shape.references):
        tensors[image_name(number)] = port(vae_encoder, "image", b=1, h=height, w=width)
        tensors[reference_name(number)] = port(vae_encoder, "reference", b=1, m=height * width)
    return tensors


def transformer_precision(bundle: Bundle) -> Precision:
    """Return the type in which conditioner and denoiser hand tensors to each other."""
    return bundle.graph(DENOISER).precision


def total_bytes(tensors: Mapping[str, TensorSpec]) -> int:
    """Return the size in bytes of all tensors together."""
    return sum(spec.size_bytes for spec in tensors.values())


def input_specs(bundle: Bundle, component: str, shapes: Mapping[str, Sequence[int]]) -> dict[str, TensorSpec]:
    """Return what a component takes, with inputs of these shapes.

    Raises ExecutorError for shapes that it does not take.
    """
    _dynamic_extents(bundle, component, shapes)
    precision = bundle.graph(component).precision
    return {
        port.name: TensorSpec(shape=tuple(shapes[port.name]), element_type=port.element_type.resolve(precision))
        for port in bundle.component(component).inputs
    }


def output_specs(bundle: Bundle, component: str, shapes: Mapping[str, Sequence[int]]) -> dict[str, TensorSpec]:
    """Return what a component gives for inputs of these shapes.

    Raises ExecutorError for shapes that it does not take.
    """
    extents = _dynamic_extents(bundle, component, shapes)
    dims, precision = bundle.manifest.model.dims, bundle.graph(component).precision
    return {
        port.name: TensorSpec(
            shape=tuple(int(extent) for extent in dims.resolve(port.dims, **extents)),
            element_type=port.element_type.resolve(precision),
        )
        for port in bundle.component(component).outputs
    }


def _dynamic_extents(bundle: Bundle, component: str, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Return the dynamic dimensions that input shapes stand for. Raises ExecutorError for shapes that are not taken."""
    found: dict[str, int] = {}
    for port in bundle.component(component).inputs:
        shape, wanted = shapes.get(port.name), bundle.manifest.model.dims.resolve(port.dims)
        if shape is None or len(shape) != len(wanted) or not all(map(_fits(found), shape, wanted)):
            given = "nothing" if shape is None else list(shape)
            raise ExecutorError(f"{component}: {port.name} must be {list(wanted)}, this is {given}")
    if {"h", "w"} <= found.keys():
        found["m"] = found["h"] * found["w"]
    return found


def _fits(found: dict[str, int]) -> Callable[[int, int | str], bool]:
    """Return a test of whether an extent is what a port wants.

    It wants its constant, or what its dynamic dimension was before.
    """

    def fits(extent: int, wanted: int | str) -> bool:
        if isinstance(wanted, int):
            return extent == wanted
        factor, _, name = wanted.rpartition("*")
        value, rest = divmod(extent, int(factor or 1))
        return rest == 0 and found.setdefault(name, value) == value

    return fits
