"""Defines the bundle's manifest: what a bundle holds, in one JSON file of a versioned schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ..branches import MAX_VALUES, Branches
from ..components import COMPONENTS, KNOWN_COMPONENTS, PIXELS_PER_TOKEN, ElementType, Precision
from ..documents import Count, Extent, Fraction, Layers, Place, Positive, Sha256, Text, convert_json, read_json
from ..errors import BundleError
from ..model_dims import ModelDims
from ..sizes import MAX_OUTPUT_SIDE
from .folder import parts_of

SCHEMA = 3
"""The schema that this version writes.

Since 2, vae_decoder has a second output; since 3, the denoiser weights velocities and keeps what a mask says, and a
manifest names features.
"""
OLDEST_SCHEMA = 2
"""The oldest schema that this version reads."""
FEATURES = ("masks", "velocity")
"""The features of all bundles that this version exports: what they can do beyond editing and generating.

Options of an export add `lora` and `step_cache`.
"""
MAX_MANIFEST_BYTES = 4 << 20
MAX_FILE_BYTES = 32 << 20
"""The largest file beside weights: a graph of a whole denoiser and a tokenizer take a few MB."""
MAX_FILES_BYTES = 256 << 20
"""The most bytes of all files beside weights: every opening reads them."""
MAX_FILES = 200
"""The most files beside weights, and the most of weights."""
MAX_SHIFT_PER_TOKEN = 2e-3
"""The steepest noise schedule; that of FLUX.1 Kontext is 1.7e-4, and e to the shift must be a number at 2^18 tokens."""
MAX_TOKENS = 1 << 12
"""The most tokens of a prompt; T5 reads 512."""
Axis = Annotated[int, Meta(ge=2, le=1024, multiple_of=2)]
"""The features of a head that encode a position along one axis, in pairs."""
Side = Annotated[int, Meta(ge=PIXELS_PER_TOKEN, le=MAX_OUTPUT_SIDE, multiple_of=PIXELS_PER_TOKEN)]
"""A side of a picture in pixels."""
Sizes = Annotated[tuple[tuple[Side, Side], ...], Meta(min_length=1, max_length=1000)]
"""The (width, height) of pictures in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """Describes a file that we wrote; `path` is relative to the bundle, with forward slashes."""

    path: Place
    size_bytes: Annotated[int, Meta(ge=0, le=MAX_FILE_BYTES)]
    sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsRecord:
    """Describes a safetensors file that graphs point into.

    `origin` says how it came: "hardlink", "reflink" or "copy" of a checkpoint's file, or "converted" by us.
    `sample_sha256` covers the header and the first KiB of each tensor; `sha256` the whole file, where it was asked for.
    """

    path: Place
    size_bytes: Count
    header_sha256: Sha256
    sample_sha256: Sha256
    origin: Text
    sha256: Sha256 | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationRecord:
    """Says how a graph was quantized.

    `recipe` is its name, `recipe_sha256` covers everything that it says, `calibration_sha256` the activation ranges (""
    where none were needed). `products` counts matrix products by format; `kept` names the layers that a user kept.
    """

    recipe: Text
    recipe_sha256: Text
    calibration_sha256: Text
    products: Mapping[Text, Count]
    kept: tuple[Text, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphRecord:
    """Describes one component's graph; `precision` is what it computes in but for what `quantization` says."""

    path: Place
    precision: Precision
    opset: Annotated[int, Meta(ge=1, le=1000)]
    operators: Text
    num_parameters: Count
    weight_bytes: Count
    weights: Annotated[tuple[Place, ...], Meta(max_length=MAX_FILES)]
    quantization: QuantizationRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerRecord:
    """Names a `tokenizers` file, and says how prompts are padded with it."""

    path: Place
    length: Annotated[int, Meta(ge=1, le=MAX_TOKENS)]
    pad_id: Annotated[int, Meta(ge=0, lt=1 << 31)]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRecord:
    """Holds the noise schedule's constants and the request's defaults.

    Those of FLUX.1 Kontext are a shift of 0.5 at 256 tokens and of 1.15 at 4096.
    """

    base_tokens: Extent = 256
    max_tokens: Extent = 4096
    base_shift: Fraction = 0.5
    max_shift: Fraction = 1.15
    steps: Annotated[int, Meta(ge=1, le=1000)] = 28
    guidance: Annotated[float, Meta(ge=0.0, le=1000.0)] = 2.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """Holds what the runtime needs to know of the model; `sizes` are its trained (width, height) in pixels."""

    dims: ModelDims
    num_double_blocks: Layers
    num_single_blocks: Layers
    rope_axes: tuple[Axis, Axis, Axis]
    rope_theta: Positive
    sizes: Sizes
    flow: FlowRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraRecord:
    """Names a LoRA file that was fused or swapped in: its name, what it was read as, its hash and its scale.

    `adapter_config` is the hash of the file of that name beside it where its scales are by that, None otherwise.
    """

    name: Text
    family: Text
    sha256: Sha256
    scale: Annotated[float, Meta(ge=-1000.0, le=1000.0)]
    adapter_config: Sha256 | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Lists everything a bundle holds.

    `source` is the checkpoint as the user named it; `features` names what the graphs can do beyond editing and
    generating; `loras` are those that were fused into the weights, in that order; `branches` says where LoRAs can be
    swapped in, None if nowhere.
    """

    schema: int
    producer: Text
    created: Text
    source: Text
    layout: Text
    model: ModelRecord
    graphs: Mapping[Text, GraphRecord]
    tokenizers: Mapping[Text, TokenizerRecord]
    files: Annotated[tuple[FileRecord, ...], Meta(max_length=MAX_FILES)]
    weights: Annotated[tuple[WeightsRecord, ...], Meta(max_length=MAX_FILES)]
    features: tuple[Text, ...] = ()
    loras: Annotated[tuple[LoraRecord, ...], Meta(max_length=MAX_FILES)] = ()
    branches: Branches | None = None

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Read a manifest; `where` names it in errors.

    Raises:
        BundleError: The manifest is malformed, or of a schema that this version does not read.
    """

    def foreign(reason: str) -> BundleError:
        return BundleError(f"{where} is not a bundle manifest ({reason}); export the bundle again")

    def damaged(reason: str) -> BundleError:
        return BundleError(f"{where} is damaged: {reason}; export the bundle again")

    raw = read_json(data, dict[str, Any], foreign)
    schema = raw.get("schema")
    if not isinstance(schema, int):
        raise foreign("it has no schema")
    if not OLDEST_SCHEMA <= schema <= SCHEMA:
        newer = schema > SCHEMA
        cure = "upgrade with pip install --upgrade kontext-trt" if newer else "export the bundle again"
        producer = str(raw.get("producer", f"{'a newer' if newer else 'an older'} version"))[:100]
        reads = f"this version reads {OLDEST_SCHEMA} to {SCHEMA}"
        raise BundleError(f"{where} has schema {schema}, written by {producer}; {reads}: {cure}")
    manifest = convert_json(raw, Manifest, damaged)
    _check_places(manifest, where, damaged)
    _check_model(manifest, damaged)
    return manifest


def _check_places(manifest: Manifest, where: str, damaged: Callable[[str], BundleError]) -> None:
    """Raise BundleError unless every file is listed once, and lies in the bundle: a manifest may come from anywhere."""
    files = [record.path for record in manifest.files]
    weights = [record.path for record in manifest.weights]
    for path in sorted({*files, *weights}):
        if "/".join(parts_of(path, where)) != path:
            raise damaged(f"{path} is not how a path is written")
    if len({*files, *weights}) != len(files) + len(weights):
        raise damaged("a file is listed twice")
    if sum(record.size_bytes for record in manifest.files) > MAX_FILES_BYTES:
        raise damaged(f"its files beside weights have more than {MAX_FILES_BYTES:,} bytes together")
    for path in weights:
        if not path.endswith(".safetensors") or "*" in path:  # a star is how ONNX Runtime marks memory
            raise damaged(f"{path} is no name of a weights file")
    for name, component in COMPONENTS.items():
        if component.tokenizer and name not in manifest.tokenizers:
            raise damaged(f"it lists no tokenizer for {name}")
    used = [record.path for record in (*manifest.graphs.values(), *manifest.tokenizers.values())]
    unlisted = [path for path in used if path not in files]
    unlisted += [path for graph in manifest.graphs.values() for path in graph.weights if path not in weights]
    if unlisted:
        raise damaged(f"{unlisted[0]} is used and not listed")
    for name, graph in manifest.graphs.items():
        if not graph.path.endswith(".onnx"):
            raise damaged(f"the graph of {name} is {graph.path}, not an ONNX file")


def _check_model(manifest: Manifest, damaged: Callable[[str], BundleError]) -> None:
    """Raise BundleError for numbers that do not fit together."""
    model, flow = manifest.model, manifest.model.flow
    unknown = sorted(name for name in (*manifest.graphs, *manifest.tokenizers) if name not in KNOWN_COMPONENTS)
    if unknown:
        raise damaged(f"there is no component {unknown[0]}")
    for name, tokenizer in manifest.tokenizers.items():
        length = model.dims.resolve(KNOWN_COMPONENTS[name].inputs[0].dims)[-1]
        if tokenizer.length != length:
            raise damaged(f"the tokenizer of {name} gives {tokenizer.length} tokens, and its graph takes {length}")
    if sum(model.rope_axes) != 2 * model.dims.rope_width:
        raise damaged(f"rope axes {list(model.rope_axes)} do not make {model.dims.rope_width} pairs")
    slope = (flow.max_shift - flow.base_shift) / ((flow.max_tokens - flow.base_tokens) or 0.5)
    if flow.max_tokens <= flow.base_tokens or abs(slope) > MAX_SHIFT_PER_TOKEN:
        raise damaged("its noise schedule has no shift for every number of tokens")
    if manifest.features and manifest.schema < 3:
        raise damaged(f"bundles of schema {manifest.schema} have no features")
    for component in KNOWN_COMPONENTS.values():
        if component.feature and (component.feature in manifest.features) != (component.name in manifest.graphs):
            raise damaged(f"the feature {component.feature} and a graph of {component.name} come together")
    _check_branches(manifest, damaged)
    for part, precisions in _precisions(manifest):
        if len(precisions) > 1:
            raise damaged(f"the graphs of the {part} hand values over in {' and '.join(sorted(precisions))}")


def _check_branches(manifest: Manifest, damaged: Callable[[str], BundleError]) -> None:
    """Raise BundleError for branches of other components than the transformer's, listed twice, or of too many values.

    Of these components a graph computes the branches in its own type.
    """
    if manifest.branches is None:
        return
    for name, layers in manifest.branches.layers.items():
        if name not in KNOWN_COMPONENTS or KNOWN_COMPONENTS[name].part != "transformer":
            raise damaged(f"it has branches of {name}, which is no part of the transformer")
        if len({layer.name for layer in layers}) != len(layers):
            raise damaged(f"it has two branches of one layer of {name}")
        if manifest.branches.values(name) > MAX_VALUES:
            raise damaged(f"the branches of {name} have more than {MAX_VALUES:,} values")


def _precisions(manifest: Manifest) -> Iterator[tuple[str, set[str]]]:
    """Yield the precisions of each part of the checkpoint whose graphs hand values over in their own."""
    own = [
        component
        for component in KNOWN_COMPONENTS.values()
        if component.name in manifest.graphs
        and any(port.element_type is ElementType.ACTIVATION for port in component.ports)
    ]
    for part, components in groupby(own, key=lambda component: component.part):
        yield part, {manifest.graphs[component.name].precision.value for component in components}
