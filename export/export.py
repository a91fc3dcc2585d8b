"""Exports a checkpoint to a bundle: six graphs that point into its weights, tokenizers, and a manifest."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path

import msgspec
import onnx_ir as ir

from ..engine.branches import Branches
from ..engine.bundle.bundle import BUILT, GRAPHS, MANIFEST, NETWORKS, TOKENIZERS, WEIGHTS, Bundle
from ..engine.bundle.graph_file import WeightPlace
from ..engine.bundle.manifest import (
    SCHEMA,
    GraphRecord,
    Manifest,
    ModelRecord,
    TokenizerRecord,
    WeightsRecord,
)
from ..engine.bundle.share import files_below, share_files
from ..engine.components import COMPONENTS, DENOISER, Component, Operators
from ..engine.documents import TEXT_LENGTH
from ..engine.printable import printable_line
from ..engine.progress import Progress, Silent
from ..engine.sizes import TRAINED_SIZES
from ..engine.system.files import atomic_folder, sha256_file
from ..version import __version__
from .checkpoint import Checkpoint, CheckpointFiles, as_checkpoint
from .checkpoint.fused import fuse_checkpoint
from .configs import FOLDERS
from .destination import check_destination
from .graphs.branches import add_branches
from .graphs.place_weights import WeightPlacer, nvfp4_weights, row_scales
from .graphs.stored_fp8 import (
    StoredLinear,
    as_stored_record,
    check_shared,
    quantize_stored,
    stored_linears,
    tell_unused_scales,
)
from .graphs.trace import TraceOptions, expected_tensors, model_dims, trace
from .graphs.weights import attach_weights, stored_precision
from .machine import warn_of_machine
from .options import ExportOptions as ExportOptions
from .records import file_record, weights_record
from .tokenizers import write_tokenizer


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
        checkpoint: A checkpoint, its path (a diffusers folder, a ComfyUI folder, or a transformer file), or its place
            on the hub, `OWNER/NAME[@REVISION][:FILE]`.
        path: The folder to make.
        options: How it is exported.
        files: Where those parts of a checkpoint at a path lie that are elsewhere.
        progress: What is told of the work.

    Returns:
        The opened bundle.

    Raises:
        CheckpointError: A part is missing or damaged, or a tensor is missing, extra or misshapen.
        LoraError: A LoRA cannot be used, or does not fit the checkpoint.
        ExportError: Tracing fails or `path` is taken.
        BundleError: The bundle that is to be replaced has plans that are links.
        OptionError: There are `files` of a checkpoint that is open already.
    """
    options, path = options or ExportOptions(), Path(path)
    _check_place(path, options)  # before anything is fetched
    checkpoint = as_checkpoint(checkpoint, files, progress)
    warn_of_machine(checkpoint, options)
    return write_bundle(checkpoint, path, options, progress or Silent())


def _check_place(path: Path, options: ExportOptions) -> None:
    check_destination(path, overwrite=options.overwrite)
    if path.is_dir():
        list(files_below(path, BUILT))  # what cannot be kept, is found before anything takes time


def write_bundle(checkpoint: Checkpoint, path: Path, options: ExportOptions, progress: Progress) -> Bundle:
    """Write a bundle as `export_bundle` does, without a word about this machine."""
    if options.loras:
        checkpoint = fuse_checkpoint(checkpoint, options.loras, allow_unused=options.allow_unused)
    config = checkpoint.config
    components = options.components
    tensors = {name: expected_tensors(name, config) for name in components}
    check_tensors(checkpoint, tensors)
    with atomic_folder(path, replace=options.overwrite) as folder:
        _BundleWriter(checkpoint, options, progress, folder, components, tensors).write()
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
        options: ExportOptions,
        progress: Progress,
        folder: Path,
        components: Mapping[str, Component],
        tensors: Mapping[str, Mapping[str, tuple[int, ...]]],
    ) -> None:
        self.checkpoint, self.config, self.options, self.progress = checkpoint, checkpoint.config, options, progress
        self.folder, self.components, self.tensors = folder, components, tensors
        views = {part: checkpoint.weights(part).views for part in FOLDERS}
        self.precisions = {part: options.precision or stored_precision(views[part].values()) for part in views}
        self.placer = WeightPlacer(folder / WEIGHTS, progress, copy=options.copy)

    def write(self) -> None:
        for name in (WEIGHTS, TOKENIZERS):
            (self.folder / name).mkdir(parents=True)
        (self.folder / NETWORKS).write_bytes(msgspec.json.encode(self.config))
        tokenizers = self._write_tokenizers()
        models = self._trace()
        branches = add_branches(models, self.options.lora_rank, self.precisions[DENOISER.part])
        stored = {name: self._stored(component, models[name]) for name, component in self.components.items()}
        check_shared(stored)
        graphs: dict[str, GraphRecord] = {}
        for part in dict.fromkeys(component.part for component in self.components.values()):
            of_part = [component for component in self.components.values() if component.part == part]
            layers = {f"{layer}.weight" for one in of_part for layer in stored[one.name]}
            weights = self.checkpoint.weights(part)
            views = weights.views
            if self.options.input_scales:
                tell_unused_scales(weights.source, views, [stored[one.name] for one in of_part])
            placed = self.placer.place(part, views, self.precisions[part], as_stored=layers)
            for one in of_part:
                graphs[one.name] = self._write_graph(one, models[one.name], placed, stored[one.name])
        graphs = {name: graphs[name] for name in self.components}
        (self.folder / MANIFEST).write_bytes(self._manifest(graphs, tokenizers, branches).to_json())

    def _write_tokenizers(self) -> dict[str, TokenizerRecord]:
        names = [name for name, component in self.components.items() if component.tokenizer]
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

    def _trace(self) -> dict[str, ir.Model]:
        """Trace all components first: which weights can stay as they lie, their graphs say."""
        total = sum(_cost(component, self.tensors[name]) for name, component in self.components.items())
        self.progress.start(f"tracing {len(self.components)} components", total)
        models: dict[str, ir.Model] = {}
        for name, component in self.components.items():
            options = TraceOptions(
                precision=self.precisions[component.part], operators=self.options.operators.of(component)
            )
            models[name] = trace(component, self.config, options)
            self.progress.advance(_cost(component, self.tensors[name]))
        return models

    def _stored(self, component: Component, model: ir.Model) -> dict[str, StoredLinear]:
        """Return which layers read FP8 weights as they lie; products within fused operators do not."""
        forms = {self.options.operators.of(one) for one in self.components.values() if one.part == component.part}
        if not self.options.fp8_as_stored or Operators.FUSED in forms:
            return {}
        return stored_linears(
            component.name,
            model,
            self.checkpoint.weights(component.part).views,
            operators=self.options.operators.of(component),
            input_scales=self.options.input_scales,
        )

    def _write_graph(
        self,
        component: Component,
        model: ir.Model,
        placed: Mapping[str, WeightPlace],
        stored: Mapping[str, StoredLinear],
    ) -> GraphRecord:
        operators, precision = self.options.operators.of(component), self.precisions[component.part]
        # a bundle of fused operators has some for what else is FP8, too
        fused = bool(stored) and self.options.operators is Operators.FUSED
        if stored:
            scale_precision = quantize_stored(model, precision, stored, fused=fused)
            views = self.checkpoint.weights(component.part).views
            scales = row_scales(views, [name for name, layer in stored.items() if layer.scale is None])
            placed = {**placed, **self.placer.place(f"{component.name}.scales", scales, scale_precision)}
            placed |= self.placer.repack(component.name, nvfp4_weights(views, stored))
        file = self.folder / GRAPHS / f"{component.name}.onnx"
        used = attach_weights(model, placed, file.parent)
        model.producer_name, model.producer_version = "kontext-trt", __version__
        model.metadata_props.update({"kontext_trt.component": component.name, "kontext_trt.precision": precision.value})
        ir.save(model, file)
        return GraphRecord(
            path=f"{GRAPHS}/{file.name}",
            precision=precision,
            opset=operators.opset,
            operators=(Operators.FUSED if fused else operators).value,
            num_parameters=sum(prod(shape) for shape in self.tensors[component.name].values()),
            weight_bytes=sum(weight.size_bytes for weight in used.values()),
            weights=tuple(sorted({f"{WEIGHTS}/{weight.file.name}" for weight in used.values()})),
            quantization=as_stored_record(stored.values()),
        )

    def _manifest(
        self,
        graphs: Mapping[str, GraphRecord],
        tokenizers: Mapping[str, TokenizerRecord],
        branches: Branches | None,
    ) -> Manifest:
        transformer = self.config.transformer
        written = [NETWORKS, *(record.path for record in (*graphs.values(), *tokenizers.values()))]
        return Manifest(
            schema=SCHEMA,
            producer=f"kontext-trt {__version__}",
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            source=printable_line(self.checkpoint.named)[:TEXT_LENGTH],
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
            weights=tuple(self._weights_record(file) for file in self.placer.origins),
            features=self.options.features,
            branches=branches,
            loras=self.checkpoint.loras,
        )

    def _weights_record(self, file: Path) -> WeightsRecord:
        record = weights_record(file, self.placer.origins[file])
        if not self.options.hash_weights:
            return record
        self.progress.start(f"hashing {file.name}", record.size_bytes)
        return replace(record, sha256=sha256_file(file, self.progress.advance))
