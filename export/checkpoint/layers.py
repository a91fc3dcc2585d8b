"""Gathers what a file holds of each layer: its weight, the tensors beside it, and what is declared of its format.

ComfyUI declares formats in three ways: in the header's `_quantization_metadata`, in a tensor `L.comfy_quant` of UTF-8
JSON, and, before both, by a tensor `scaled_fp8` for the whole file. Source: ComfyUI's QUANTIZATION.md, and
`convert_old_quants` in its comfy/utils.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...engine.documents import read_json
from ...engine.errors import CheckpointError
from .file_contents import Contents
from .views import TensorView, View

DECLARATIONS = "_quantization_metadata"
DECLARATION = "comfy_quant"
MARKER = "scaled_fp8"
MAX_DECLARATION_BYTES = 1 << 16

SIDES = (
    "weight_scale",
    "scale_weight",
    "weight_scale_2",
    "weight_scale_inv",
    "input_scale",
    "scale_input",
    "pre_quant_scale",
    DECLARATION,
    "weight_s_rel",
    "weight_s_channel",
    "weight_codebook",
    "weight_zero_point",
    "weight.absmax",
    "weight.quant_map",
    "weight.nested_absmax",
    "weight.nested_quant_map",
    "weight.quant_state.bitsandbytes__nf4",
    "weight.quant_state.bitsandbytes__fp4",
    "SCB",
    "weight_format",
    "qweight",
    "wscales",
    "wzeros",
    "wcscales",
    "wtscale",
    "smooth",
    "smooth_orig",
    "smooth_factor",
    "proj_down",
    "proj_up",
)
"""The names of tensors that say something of a weight beside them, and are not weights themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLayer:
    """Holds what a file has of one layer's weight.

    Attributes:
        source: The file, for messages.
        name: The layer's name, without the prefix that all names of the file have.
        tensors: Its weight, under "weight", and the tensors beside it by their names in `SIDES`.
        declared: What is declared of it: `format`, `full_precision_matrix_mult` and whatever else there is.
    """

    source: str
    name: str
    tensors: Mapping[str, TensorView]
    declared: Mapping[str, Any] = field(default_factory=dict)

    @property
    def weight(self) -> TensorView:
        """The weight as it is stored; raise CheckpointError if the file has none."""
        if "weight" not in self.tensors:
            others = ", ".join(self.tensors)
            raise CheckpointError(f"{self.source} has {others} of a layer {self.name}, and no weight of it")
        return self.tensors["weight"]

    @property
    def format(self) -> str | None:
        """The format that is declared, None if none is."""
        return self.declared.get("format")


def gather_layers(contents: Contents) -> tuple[dict[str, StoredLayer], dict[str, TensorView]]:
    """Return the layers that have more than plain weights, and every tensor that is of none of them.

    Raises:
        CheckpointError: A declaration is malformed, or of a layer that is not there.
    """
    sides: dict[str, dict[str, TensorView]] = {}
    plain: dict[str, TensorView] = {}
    for name, view in contents.tensors.items():
        stem, side = _split(name)
        if side is None:
            plain[name] = view
        else:
            sides.setdefault(stem, {})[side] = view
    declared = _declarations(contents, sides, plain)
    layers: dict[str, StoredLayer] = {}
    for stem in dict.fromkeys((*sides, *declared)):
        tensors = dict(sides.get(stem, {}))
        if f"{stem}.weight" in plain:
            tensors["weight"] = plain.pop(f"{stem}.weight")
        tensors.pop(DECLARATION, None)
        layers[stem] = StoredLayer(source=contents.source, name=stem, tensors=tensors, declared=declared.get(stem, {}))
    return layers, plain


def _split(name: str) -> tuple[str, str | None]:
    for side in SIDES:
        if name.endswith(f".{side}"):
            return name.removesuffix(f".{side}"), side
    return name, None


def _declarations(
    contents: Contents, sides: Mapping[str, Mapping[str, TensorView]], plain: dict[str, TensorView]
) -> dict[str, dict[str, Any]]:
    """Return what is declared of each layer; the marker of old files is taken out of `plain`."""
    marker = plain.pop(MARKER, None)
    found = _in_header(contents, plain)
    if marker is not None and DECLARATIONS not in contents.metadata:
        for stem, tensors in sides.items():
            if "scale_weight" in tensors:
                found[stem] = {"full_precision_matrix_mult": marker.num_items == 2}
    for stem, tensors in sides.items():
        if DECLARATION in tensors:
            found[stem] = _one(_text_of(tensors[DECLARATION], contents, stem), contents, stem)
    return found


def _in_header(contents: Contents, plain: Mapping[str, TensorView]) -> dict[str, dict[str, Any]]:
    if DECLARATIONS not in contents.metadata:
        return {}

    def malformed(reason: str) -> CheckpointError:
        return CheckpointError(f"{contents.source}: the header's {DECLARATIONS} is malformed ({reason})")

    document = read_json(contents.metadata[DECLARATIONS].encode(), dict[str, Any], malformed)
    layers = document.get("layers", {})
    if not isinstance(layers, dict):
        raise malformed("layers is not an object")
    found: dict[str, dict[str, Any]] = {}
    for name, value in layers.items():
        stem = _without_wrapper(name, plain)
        if stem is not None:
            found[stem] = _one(value, contents, stem)
    return found


def _without_wrapper(layer: str, plain: Mapping[str, TensorView]) -> str | None:
    """Return a declared layer's name as it is in the file: some writers leave the file's prefix out, others do not."""
    parts = layer.split(".")
    stems = (".".join(parts[start:]) for start in range(len(parts)))
    return next((stem for stem in stems if f"{stem}.weight" in plain), None)


def _text_of(view: TensorView, contents: Contents, stem: str) -> Any:
    def malformed(reason: str) -> CheckpointError:
        return CheckpointError(f"{contents.source}: {stem}.{DECLARATION} is malformed ({reason})")

    if not isinstance(view, View) or view.dtype != "U8" or view.num_items > MAX_DECLARATION_BYTES:
        raise malformed(
            f"it should be at most {MAX_DECLARATION_BYTES} bytes of JSON, not {view.dtype} {list(view.shape)}"
        )
    with view.path.open("rb") as file:
        file.seek(view.offset)
        return read_json(file.read(view.size_bytes), dict[str, Any], malformed)


def _one(value: Any, contents: Contents, stem: str) -> dict[str, Any]:
    declared = {"format": value} if isinstance(value, str) else value
    if not isinstance(declared, dict) or not isinstance(declared.get("format", ""), str):
        raise CheckpointError(
            f"{contents.source}: what is declared of the format of {stem} is malformed: {value!r:.80}"
        )
    return declared
