"""Exports a checkpoint to a bundle: six graphs that point into its weights, tokenizers, and a manifest."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import msgspec
import onnx_ir as ir

from ..engine.bundle.bundle import BUILT, GRAPHS, MANIFEST, NETWORKS, TOKENIZERS, WEIGHTS, Bundle
from ..engine.bundle.graph_file import WeightPlace
from ..engine.bundle.manifest import (
    FEATURES,
    SCHEMA,
    FileRecord,
    GraphRecord,
    Manifest,
    ModelRecord,
    TokenizerRecord,
    WeightsRecord,
)
from ..engine.bundle.share import files_below, share_files
from ..engine.bundle.tensor_file import TensorFile
from ..engine.components import COMPONENTS, Component, Operators, Precision
from ..engine.documents import TEXT_LENGTH
from ..engine.errors import ExportError
from ..engine.printable import printable_line
from ..engine.progress import Progress, Silent
from ..engine.sizes import TRAINED_SIZES
from ..engine.system.files import atomic_folder, free_path, is_taken, sha256_file, share_file
from ..version import __version__
from .checkpoint import Checkpoint, CheckpointFiles, View, as_checkpoint
from .configs import ModelConfig
from .graphs.stored_fp8 import as_stored_record, dequantize_stored
from .graphs.trace import TraceOptions, expected_tensors, model_dims, trace
from .graphs.weights import attach_weights, stored_precision, usable_as_fp8, usable_as_stored, write_converted
from .tokenizers import write_tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """Holds the options of an export.

    Attributes:
        precision: The type that every network computes in; None takes the type that each is stored in.
        fp8_as_stored: Graphs read FP8 weights of linear layers as they lie, and dequantize them, for which TensorRT
            needs a GPU from sm_89; without, they are converted.
        operators: The operators that graphs may have.
        hash_weights: Reads every byte once.
        copy: Gives the bundle weights of its own: a checkpoint that is written into then changes nothing.
        overwrite: Replaces a bundle that is there.
    """

    precision: Precision | None = None
    fp8_as_stored: bool = True
    operators: Operators = Operators.SINGLE
    hash_weights: bool = False
    copy: bool = False
    overwrite: bool = False


def export_bundle(
    checkpoint: Checkpoint | Path | str,
    path: Path | str,
    options: ExportOptions | None = None,
    *,
    files: CheckpointFiles | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Write a bundle at `path`, whole or not at all, and open it.

    Args:
        checkpoint: A checkpoint, or its path: a diffusers folder, a ComfyUI models folder, or a transformer file.
        path: The folder to make.
        options: How it is exported.
        files: Where those parts of a checkpoint at a path lie that are elsewhere.
        progress: What is told of the work.

    Returns:
        The opened bundle.

    Raises:
        CheckpointError: A part is missing or damaged, or a tensor is missing, extra or misshapen.
        ExportError: Tracing fails or `path` is taken.
        BundleError: The bundle that is to be replaced has plans that are links.
        OptionError: There are `files` of a checkpoint that is open already.
    """
    options, progress, path = options or ExportOptions(), progress or Silent(), Path(path)
    checkpoint = as_checkpoint(checkpoint, files)
    if path.exists() and not options.overwrite:
        raise ExportError(f"{path} exists; choose another name or export with --overwrite")
    if is_taken(path) and not (path / MANIFEST).is_file():
        raise ExportError(f"{path} exists and is not a bundle; it will not be overwritten")
    if path.is_dir():
        list(files_below(path, BUILT))  # what cannot be kept, is found before anything takes time
    config = checkpoint.config
    tensors = {name: expected_tensors(name, config) for name in COMPONENTS}
    check_tensors(checkpoint, tensors)
    with atomic_folder(path, replace=options.overwrite) as folder:
        _BundleWriter(checkpoint, config, options, progress, folder, tensors).write()
        if path.is_dir():
            # by content, so what still fits the new graphs is used, and `plans prune` removes the rest
            share_files(path, folder, files_below(path, BUILT))
    return Bundle.open(path)


def check_tensors(checkpoint: Checkpoint, tensors: Mapping[str, Mapping[str, tuple[int, ...]]]) -> None:
    """Raise CheckpointError unless every part has exactly the tensors that its components need."""
    for part in {component.part for component in COMPONENTS.values()}:
        needed: dict[str, tuple[int, ...]] = {}
        for component in COMPONENTS.values():
            if component.part == part:
                needed |= tensors[component.name]
        checkpoint.weights(part).check(needed)


def _cost(component: Component, tensors: Mapping[str, object]) -> float:
    """Return what tracing takes, in units that a progress bar can add up: it grows with the number of layers."""
    return len(tensors) * component.trace_cost


class _BundleWriter:
    """Writes one bundle, step by step, and keeps what it has written so far."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: ModelConfig,
        options: ExportOptions,
        progress: Progress,
        folder: Path,
        tensors: Mapping[str, Mapping[str, tuple[int, ...]]],
    ) -> None:
        self.checkpoint, self.config, self.options, self.progress = checkpoint, config, options, progress
        self.folder, self.tensors = folder, tensors
        self.origins: dict[Path, str] = {}  # weights file in the bundle -> how it came
        self.shared: dict[Path, Path] = {}  # checkpoint file -> its file in the bundle
        self.fp8_scales: dict[tuple[str, str], float] = {}  # part, tensor -> what an FP8 weight is multiplied by

    def write(self) -> None:
        for name in (WEIGHTS, TOKENIZERS):
            (self.folder / name).mkdir(parents=True)
        (self.folder / NETWORKS).write_bytes(msgspec.json.encode(self.config))
        tokenizers = self._write_tokenizers()
        placed: dict[str, dict[str, WeightPlace]] = {}
        precisions: dict[str, Precision] = {}
        for part in dict.fromkeys(component.part for component in COMPONENTS.values()):
            views = self.checkpoint.weights(part).views
            precisions[part] = self.options.precision or stored_precision(views.values())
            placed[part] = self._place(part, views, precisions[part])
        total = sum(_cost(component, self.tensors[name]) for name, component in COMPONENTS.items())
        self.progress.start("tracing the six components", total)
        graphs = {
            name: self._write_graph(component, precisions[component.part], placed[component.part])
            for name, component in COMPONENTS.items()
        }
        (self.folder / MANIFEST).write_bytes(self._manifest(graphs, tokenizers).to_json())

    def _write_tokenizers(self) -> dict[str, TokenizerRecord]:
        names = [name for name, component in COMPONENTS.items() if component.tokenizer]
        networks = (self.config.clip, self.config.t5)
        return {
            name: write_tokenizer(
                name,
                source,
                self.folder / TOKENIZERS / f"{name}.json",
                length=network.length,
                vocabulary=network.vocabulary,
            )
            for name, source, network in zip(names, self.checkpoint.tokenizers, networks, strict=True)
        }

    def _place(self, part: str, views: Mapping[str, View], precision: Precision) -> dict[str, WeightPlace]:
        placed: dict[str, WeightPlace] = {}
        convert: dict[str, View] = {}
        for name, view in views.items():
            as_fp8 = self._reads_fp8(part) and usable_as_fp8(name, view)
            if as_fp8 or usable_as_stored(view, precision):
                file = self._share(part, view.path)
                placed[name] = WeightPlace(file=file, offset=view.offset, size_bytes=view.size_bytes)
                if as_fp8:
                    self.fp8_scales[part, name] = view.scale_value
            else:
                convert[name] = view
        if convert:
            self.progress.start(
                f"converting {part} to {precision.value}",
                sum(view.num_items for view in convert.values()) * precision.item_bytes,
            )
            file = free_path(self.folder / WEIGHTS / f"{part}.{precision.value}.safetensors")
            placed |= write_converted(convert, precision, file, self.progress.advance)
            self.origins[file] = "converted"
        return placed

    def _reads_fp8(self, part: str) -> bool:
        """Return whether graphs of a part read FP8 weights as they lie; products within fused operators do not."""
        forms = {self.options.operators.of(one) for one in COMPONENTS.values() if one.part == part}
        return self.options.fp8_as_stored and Operators.FUSED not in forms

    def _share(self, part: str, source: Path) -> Path:
        if source not in self.shared:
            target = free_path(self.folder / WEIGHTS / f"{part}.{source.name}")
            self.origins[target] = share_file(source, target, copy=self.options.copy)
            self.shared[source] = target
        return self.shared[source]

    def _write_graph(
        self, component: Component, precision: Precision, placed: Mapping[str, WeightPlace]
    ) -> GraphRecord:
        operators = self.options.operators.of(component)
        options = TraceOptions(precision=precision, operators=operators)
        model = trace(component, self.config, options)
        scales = {name: scale for (part, name), scale in self.fp8_scales.items() if part == component.part}
        num_fp8 = dequantize_stored(model, precision, scales) if scales else 0
        file = self.folder / GRAPHS / f"{component.name}.onnx"
        used = attach_weights(model, placed, file.parent)
        model.producer_name, model.producer_version = "kontext-trt", __version__
        model.metadata_props.update({"kontext_trt.component": component.name, "kontext_trt.precision": precision.value})
        ir.save(model, file)
        self.progress.advance(_cost(component, self.tensors[component.name]))
        return GraphRecord(
            path=f"{GRAPHS}/{file.name}",
            precision=precision,
            opset=operators.opset,
            operators=operators.value,
            num_parameters=sum(prod(shape) for shape in self.tensors[component.name].values()),
            weight_bytes=sum(weight.size_bytes for weight in used.values()),
            weights=tuple(sorted({f"{WEIGHTS}/{weight.file.name}" for weight in used.values()})),
            quantization=as_stored_record(num_fp8) if num_fp8 else None,
        )

    def _manifest(self, graphs: Mapping[str, GraphRecord], tokenizers: Mapping[str, TokenizerRecord]) -> Manifest:
        transformer = self.config.transformer
        written = [NETWORKS, *(record.path for record in (*graphs.values(), *tokenizers.values()))]
        return Manifest(
            schema=SCHEMA,
            producer=f"kontext-trt {__version__}",
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            source=printable_line(str(self.checkpoint.path))[:TEXT_LENGTH],
            layout=self.checkpoint.layout,
            model=ModelRecord(
                dims=model_dims(self.config),
                num_double_blocks=transformer.num_double_blocks,
                num_single_blocks=transformer.num_single_blocks,
                rope_axes=transformer.rope_axes,
                rope_theta=transformer.rope_theta,
                sizes=self.checkpoint.sizes or TRAINED_SIZES,
                flow=self.checkpoint.flow,
            ),
            graphs=graphs,
            tokenizers=tokenizers,
            files=tuple(file_record(self.folder, path) for path in written),
            weights=tuple(self._weights_record(file) for file in self.origins),
            features=FEATURES,
        )

    def _weights_record(self, file: Path) -> WeightsRecord:
        record = weights_record(file, self.origins[file])
        if not self.options.hash_weights:
            return record
        self.progress.start(f"hashing {file.name}", record.size_bytes)
        return replace(record, sha256=sha256_file(file, self.progress.advance))


def file_record(folder: Path, path: str) -> FileRecord:
    """Return the manifest's record of the file at `path`, relative to the bundle's `folder`, with its size and hash."""
    file = folder / path
    return FileRecord(path=path, size_bytes=file.stat().st_size, sha256=sha256_file(file))


def weights_record(file: Path, origin: str) -> WeightsRecord:
    """Return the manifest's record of a file among the bundle's weights, without its full hash."""
    tensors = TensorFile.open(file)
    return WeightsRecord(
        path=f"{WEIGHTS}/{file.name}",
        size_bytes=tensors.size_bytes,
        header_sha256=tensors.header_sha256,
        sample_sha256=tensors.sample_sha256(),
        origin=origin,
    )
