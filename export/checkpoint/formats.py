"""Defines the formats that weights are stored in: how each is recognised, and how it is read or why it is refused.

This is the one table of formats. A layer has a format, not a file: files mix them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ...engine.errors import CheckpointError
from .file_contents import Contents
from .fp8 import DECLARED, read_fp8
from .layers import StoredLayer, gather_layers
from .nvfp4 import read_nvfp4
from .views import FLOATS, TensorView

ORIGINAL = "use the file that it was made from, in bf16 or FP8"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFormat:
    """Describes a format of weights.

    Attributes:
        name: What people call it.
        found: Whether a layer is stored in it, by the names, types and shapes of its tensors and what is declared.
        read: Returns the weight; None for what is refused. It raises CheckpointError for a layer that is damaged.
        refusal: What is said of a file with such a layer, after its path: what it is, and what to do instead.
    """

    name: str
    found: Callable[[StoredLayer], bool]
    read: Callable[[StoredLayer], TensorView] | None = None
    refusal: str = ""


def _declares(*formats: str) -> Callable[[StoredLayer], bool]:
    return lambda layer: layer.format in formats


def _has(*sides: str) -> Callable[[StoredLayer], bool]:
    return lambda layer: any(side in layer.tensors for side in sides)


def _types(layer: StoredLayer, **dtypes: tuple[str, ...]) -> bool:
    return all(side in layer.tensors and layer.tensors[side].dtype in wanted for side, wanted in dtypes.items())


FP8 = ("F8_E4M3", "F8_E5M2")
FORMATS: tuple[LayerFormat, ...] = (
    LayerFormat(
        name="SVDQuant",
        found=_has("qweight", "wscales", "proj_down", "smooth_factor"),
        refusal="is quantized by SVDQuant (nunchaku), whose weights are packed for its own kernels: "
        + ORIGINAL
        + ", and make such a plan with --precision nvfp4-svd",
    ),
    LayerFormat(
        name="bitsandbytes 4 bit",
        found=_has("weight.absmax", "weight.quant_state.bitsandbytes__nf4", "weight.quant_state.bitsandbytes__fp4"),
        refusal="is quantized by bitsandbytes (NF4 or FP4), which no compiler reads: " + ORIGINAL,
    ),
    LayerFormat(
        name="bitsandbytes int8",
        found=_has("SCB", "weight_format"),
        refusal="is quantized by bitsandbytes (LLM.int8), which no compiler reads: " + ORIGINAL,
    ),
    LayerFormat(
        name="rotated weights",
        found=lambda layer: bool(layer.declared.get("convrot")) or layer.format == "convrot_w4a4",
        refusal="has weights that are rotated (ComfyUI's convrot), and no graph turns its activations: " + ORIGINAL,
    ),
    LayerFormat(
        name="int8",
        found=lambda layer: layer.format == "int8_tensorwise" or _types(layer, weight=("I8",)),
        refusal="has int8 weights (such as ComfyUI's int8_tensorwise), which are not read: " + ORIGINAL,
    ),
    LayerFormat(
        name="4 bit with codebook",
        found=lambda layer: layer.format == "asym_w4a8_int8" or _has("weight_codebook", "weight_s_rel")(layer),
        refusal="has 4 bit weights with a codebook (ComfyUI's asym_w4a8_int8), which are not read: " + ORIGINAL,
    ),
    LayerFormat(
        name="MXFP8",
        found=lambda layer: layer.format == "mxfp8" or _types(layer, weight=FP8, weight_scale=("U8", "F8_E8M0")),
        refusal="is quantized to MXFP8 (blocks of 32 with a power of two), which is not read: " + ORIGINAL,
    ),
    LayerFormat(
        name="NVFP4",
        found=lambda layer: layer.format == "nvfp4" or _types(layer, weight=("U8", "F4"), weight_scale=("F8_E4M3",)),
        read=read_nvfp4,
    ),
    LayerFormat(
        name="FP8",
        found=lambda layer: layer.format in (None, *DECLARED) and layer.weight.dtype in FLOATS,
        read=read_fp8,
    ),
)
"""The formats in the order in which they are looked for; the first that is found counts."""


def read_formats(contents: Contents) -> dict[str, TensorView]:
    """Return the tensors of a network under the names that they have in the file, whatever format they are in.

    Raises:
        CheckpointError: A layer is of a format that is refused or unknown, or what is beside its weight does not fit.
    """
    layers, plain = gather_layers(contents)
    for name in [name for name, view in plain.items() if view.dtype not in FLOATS]:
        stem, _, side = name.rpartition(".")
        if side != "weight":
            raise CheckpointError(
                f"{contents.source}: tensor {name} is {plain[name].dtype} {list(plain[name].shape)}, and nothing but "
                "floating-point numbers is read"
            )
        layers[stem] = StoredLayer(source=contents.source, name=stem, tensors={side: plain.pop(name)})
    return {**plain, **{f"{name}.weight": _read(layer) for name, layer in layers.items()}}


def _read(layer: StoredLayer) -> TensorView:
    chosen = next((one for one in FORMATS if one.found(layer)), None)
    if chosen is None:
        raise CheckpointError(
            f"{layer.source}: {layer.name} is of a format that is not known: declared as {layer.format}, "
            f"{_described(layer.tensors)}; {ORIGINAL}"
        )
    if chosen.read is None:
        raise CheckpointError(f"{layer.source} {chosen.refusal} (its layer {layer.name}: {_described(layer.tensors)})")
    return chosen.read(layer)


def _described(tensors: Mapping[str, TensorView]) -> str:
    return ", ".join(f"{side} {view.dtype} {list(view.shape)}" for side, view in tensors.items())
