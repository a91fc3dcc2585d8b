"""Defines the bundle's manifest: what a bundle holds, in one JSON file of a versioned schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import msgspec

from ..components import COMPONENTS, Precision
from ..errors import BundleError
from ..model_dims import ModelDims

SCHEMA = 2
"""The schema of this version; since 2, vae_decoder has a second output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """Describes a file that we wrote; `path` is relative to the bundle, with forward slashes."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsRecord:
    """Describes a safetensors file that graphs point into.

    `origin` says how it came: "hardlink", "reflink" or "copy" of a checkpoint's file, or "converted" by us.
    `sample_sha256` covers the header and the first KiB of each tensor; `sha256` the whole file, where it was asked for.
    """

    path: str
    size_bytes: int
    header_sha256: str
    sample_sha256: str
    origin: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationRecord:
    """Says how a graph was quantized.

    `recipe` is its name, `recipe_sha256` covers everything that it says, `calibration_sha256` the activation ranges (""
    where none were needed). `products` counts matrix products by format; `kept` names the layers that a user kept.
    """

    recipe: str
    recipe_sha256: str
    calibration_sha256: str
    products: Mapping[str, int]
    kept: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphRecord:
    """Describes one component's graph; `precision` is what it computes in but for what `quantization` says."""

    path: str
    precision: Precision
    opset: int
    operators: str
    num_parameters: int
    weight_bytes: int
    weights: tuple[str, ...]
    quantization: QuantizationRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerRecord:
    """Names a `tokenizers` file, and says how prompts are padded with it."""

    path: str
    length: int
    pad_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRecord:
    """Holds the noise schedule's constants and the request's defaults.

    Those of FLUX.1 Kontext are a shift of 0.5 at 256 tokens and of 1.15 at 4096.
    """

    base_tokens: int = 256
    max_tokens: int = 4096
    base_shift: float = 0.5
    max_shift: float = 1.15
    steps: int = 28
    guidance: float = 2.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """Holds what the runtime needs to know of the model; `sizes` are its trained (width, height) in pixels."""

    dims: ModelDims
    num_double_blocks: int
    num_single_blocks: int
    rope_axes: tuple[int, int, int]
    rope_theta: float
    sizes: tuple[tuple[int, int], ...]
    flow: FlowRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Lists everything a bundle holds; `source` is the checkpoint as the user named it."""

    schema: int
    producer: str
    created: str
    source: str
    layout: str
    model: ModelRecord
    graphs: Mapping[str, GraphRecord]
    tokenizers: Mapping[str, TokenizerRecord]
    files: tuple[FileRecord, ...]
    weights: tuple[WeightsRecord, ...]

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Read a manifest; `where` names it in errors.

    Raises:
        BundleError: The manifest is malformed or of another schema than this version's.
    """
    try:
        raw: Any = msgspec.json.decode(data)
        schema = raw["schema"]
        if not isinstance(schema, int):
            raise TypeError("schema is not a number")
    except (msgspec.DecodeError, TypeError, KeyError) as error:
        raise BundleError(f"{where} is not a bundle manifest ({error}); export the bundle again") from error
    if schema > SCHEMA:
        raise BundleError(
            f"{where} has schema {schema}, written by {raw.get('producer', 'a newer version')}; this version reads "
            f"{SCHEMA}: upgrade with pip install --upgrade kontext-trt"
        )
    if schema < SCHEMA:
        raise BundleError(
            f"{where} has schema {schema}, written by {raw.get('producer', 'an older version')}; this version reads "
            f"{SCHEMA}: export the bundle again"
        )
    try:
        manifest = msgspec.convert(raw, Manifest, strict=False)
    except msgspec.ValidationError as error:
        raise BundleError(f"{where} is damaged: {error}; export the bundle again") from error
    _check_paths(manifest, where)
    return manifest


def _check_paths(manifest: Manifest, where: str) -> None:
    """Raise BundleError unless every file is listed, and lies in the bundle: a manifest may come from anywhere."""
    files = {record.path for record in manifest.files}
    weights = {record.path for record in manifest.weights}
    for path in files | weights:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise BundleError(f"{where} lists {path}, which is outside the bundle; do not use this bundle")
    for name, component in COMPONENTS.items():
        if component.tokenizer and name not in manifest.tokenizers:
            raise BundleError(f"{where} is damaged: it lists no tokenizer for {name}; export the bundle again")
    used = [record.path for record in (*manifest.graphs.values(), *manifest.tokenizers.values())]
    unlisted = [path for path in used if path not in files]
    unlisted += [path for graph in manifest.graphs.values() for path in graph.weights if path not in weights]
    if unlisted:
        raise BundleError(f"{where} is damaged: {unlisted[0]} is used and not listed; export the bundle again")
