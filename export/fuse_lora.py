"""Fuses LoRA files into a bundle: tensors that they change are written anew, everything else is shared."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor

from ..engine.bundle.bundle import MANIFEST, WEIGHTS, Bundle
from ..engine.bundle.graph_file import GraphFile, WeightPlace
from ..engine.bundle.manifest import GraphRecord, WeightsRecord
from ..engine.components import KNOWN_COMPONENTS
from ..engine.errors import LoraError
from ..engine.lora.changes import LoraFile
from ..engine.lora.choice import LoraChoice, lora_choices
from ..engine.lora.record import lora_records
from ..engine.number_types import ONNX, SAFETENSORS
from ..engine.progress import Progress, Silent
from ..engine.system.files import atomic_folder, free_path, share_file
from ..version import __version__
from .checkpoint.fused import FusedView, fused_views, read_loras
from .checkpoint.views import View
from .destination import check_destination
from .emulate.bundle_modules import read_model, reading
from .export import file_record, weights_record
from .graphs.trace import tensor_name
from .graphs.weights import FileTensor, attach_weights, write_tensors
from .torch_types import torch_dtype


def fuse_lora(
    bundle: Bundle | Path | str,
    path: Path | str,
    loras: Iterable[LoraChoice | tuple[Path | str, float] | Path | str],
    *,
    allow_unused: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Write a bundle whose weights have the changes of LoRA files, whole or not at all, and open it.

    The old bundle stays, and its files are shared. Each tensor is computed in float32 from the bundle's and rounded
    once, whatever the number of files.

    Args:
        bundle: The bundle, or its path.
        path: The folder to make.
        loras: The files, each with a scale: choices, pairs, or files alone for a scale of 1.
        allow_unused: Leave out tensors of theirs that change nothing here; without, they are refused.
        overwrite: True to replace a bundle at `path`.
        progress: What is told of the work.

    Returns:
        The opened bundle.

    Raises:
        LoraError: A file cannot be used, does not fit, or changes what the bundle has quantized.
        ExportError: `path` is taken.
        BundleError: The bundle cannot be used.
    """
    bundle, path, progress = Bundle.of(bundle), Path(path), progress or Silent()
    check_destination(path, overwrite=overwrite)
    files = read_loras(lora_choices(loras), allow_unused=allow_unused)
    if not files:
        raise LoraError("there is no LoRA to fuse; name at least one file")
    fuser = _Fuser(bundle, files)
    with atomic_folder(path, replace=overwrite) as folder:
        fuser.write(folder, progress)
    return Bundle.open(path)


class _Fuser:
    """Holds what is changed of a bundle, and writes the bundle that comes of it."""

    def __init__(self, bundle: Bundle, files: list[tuple[LoraFile, float]]) -> None:
        self.bundle, self.files = bundle, files
        touched = {change.place.part for file, _ in files for change in file.changes}
        self.components = [name for name in bundle.components if KNOWN_COMPONENTS[name].part in touched]
        for name in self.components:
            self._refuse_quantized(name)
        self.models = {name: read_model(bundle, name) for name in self.components}
        parts: dict[str, dict[str, View]] = {part: {} for part in touched}
        for name, model in self.models.items():
            with reading(bundle.path / bundle.graph(name).path):
                parts[KNOWN_COMPONENTS[name].part] |= _views(model)
        self.fused = fused_views(files, parts)

    def _refuse_quantized(self, component: str) -> None:
        record = self.bundle.graph(component).quantization
        if record is not None:
            raise LoraError(
                f"the {component} of {self.bundle.path} is quantized ({record.recipe}), and a LoRA is fused before: "
                "fuse it into the bundle that this was made from and quantize that, or export with --lora"
            )

    def write(self, folder: Path, progress: Progress) -> None:
        """Write the bundle into a folder."""
        manifest, graphs = self.bundle.manifest, dict(self.bundle.manifest.graphs)
        (folder / WEIGHTS).mkdir(parents=True)
        made: list[WeightsRecord] = []
        for part, changed in self.fused.items():
            file = free_path(folder / WEIGHTS / f"{part}.lora.safetensors")
            while any(record.path == f"{WEIGHTS}/{file.name}" for record in manifest.weights):
                file = file.with_stem(f"{file.stem}-fused")
            placed = self._write_weights(part, changed, file, progress)
            made.append(weights_record(file, "fused"))
            for name in self.components:
                if KNOWN_COMPONENTS[name].part == part:
                    graphs[name] = self._write_graph(name, placed, folder)
        files = []
        rewritten = {self.bundle.graph(name).path for name in self.components}
        for record in manifest.files:
            if record.path in rewritten:
                files.append(file_record(folder, record.path))
            else:
                self._share(record.path, folder)
                files.append(record)
        used = {place for graph in graphs.values() for place in graph.weights}
        weights = [self._share_weights(record, folder) for record in manifest.weights if record.path in used]
        fused = replace(
            manifest,
            producer=f"kontext-trt {__version__}",
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            graphs=graphs,
            files=tuple(files),
            weights=(*weights, *made),
            loras=(*manifest.loras, *lora_records(self.files)),
        )
        (folder / MANIFEST).write_bytes(fused.to_json())

    def _share(self, place: str, folder: Path) -> str:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        return share_file(self.bundle.file(place), folder / place)

    def _share_weights(self, record: WeightsRecord, folder: Path) -> WeightsRecord:
        how = self._share(record.path, folder)
        return replace(record, origin=how) if record.origin in ("hardlink", "reflink", "copy") else record

    def _write_weights(
        self, part: str, changed: Mapping[str, FusedView], file: Path, progress: Progress
    ) -> dict[str, WeightPlace]:
        specs = {name: FileTensor(dtype=view.dtype, shape=view.shape) for name, view in changed.items()}
        progress.start(f"fusing into {part}", sum(spec.size_bytes for spec in specs.values()))

        def pieces() -> Iterator[tuple[str, Tensor]]:
            for name, view in changed.items():
                target = torch_dtype(SAFETENSORS[view.dtype])
                for chunk in view.chunks():
                    values = chunk.to(target)
                    if not torch.isfinite(values).all():
                        raise LoraError(
                            f"{name} has values beyond {target} after LoRA files were fused into it; export the "
                            "checkpoint in another --precision, or take a smaller scale"
                        )
                    yield name, values

        return write_tensors(file, specs, pieces(), progress.advance)

    def _write_graph(self, component: str, placed: Mapping[str, WeightPlace], folder: Path) -> GraphRecord:
        record, model = self.bundle.graph(component), self.models[component]
        graph = folder / record.path
        graph.parent.mkdir(parents=True, exist_ok=True)
        with reading(self.bundle.path / record.path):
            for name, value in model.graph.initializers.items():
                if isinstance(value.const_value, ir.ExternalTensor) and tensor_name(name) in placed:
                    value.const_value = None
            attach_weights(model, placed, graph.parent)
            ir.save(model, graph)
        places = GraphFile.read(graph).weights.values()
        return replace(
            record,
            weight_bytes=sum(place.size_bytes for place in places),
            weights=tuple(sorted({f"{WEIGHTS}/{place.file.name}" for place in places})),
        )


def _views(model: ir.Model) -> dict[str, View]:
    """Return the tensors of a graph that lie in files, by the names that they have in a checkpoint."""
    found: dict[str, View] = {}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            found[tensor_name(name)] = View(
                path=Path(tensor.path),
                dtype=ONNX[tensor.dtype.name].safetensors,
                shape=tuple(tensor.shape.numpy()),
                offset=tensor.offset or 0,
            )
    return found
