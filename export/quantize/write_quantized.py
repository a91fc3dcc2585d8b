"""Writes a quantized bundle from a bundle: what the recipe changes is written anew, everything else is shared."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor

from ...engine.bundle.bundle import MANIFEST, WEIGHTS, Bundle
from ...engine.bundle.graph_file import GraphFile, WeightPlace
from ...engine.bundle.manifest import GraphRecord, QuantizationRecord, WeightsRecord
from ...engine.components import Operators, Precision
from ...engine.errors import QuantizationError
from ...engine.number_types import ONNX
from ...engine.progress import Progress
from ...engine.system.files import free_path, share_file
from ...runtime.operators.catalogue import WEIGHT_ONLY
from ...version import __version__
from ..checkpoint.views import View
from ..emulate.bundle_modules import read_model, reading
from ..graphs.functions import add_functions
from ..graphs.fused_nodes import fused_nodes
from ..graphs.fused_quantizer import FusedQuantizer
from ..graphs.linears import find_attention, find_linears
from ..graphs.quantized_weights import QuantizedLayer, quantize_layer
from ..graphs.quantizer import GraphQuantizer
from ..graphs.recipes import CALIBRATED, Fp8, Fp8Weights, Recipe, reads_fp8_alone
from ..graphs.weights import attach_weights, write_tensors
from ..records import file_record, weights_record
from .calibration import Calibration

CALIBRATION = "calibration.json"
"""The name in the bundle of the calibration that it was quantized with."""


class QuantizedBundleWriter:
    """Writes one quantized bundle, step by step, and keeps what it has written so far.

    `quantize` gives the pieces of a layer's tensors; benchmarks that fill them with something else leave that out.
    """

    def __init__(
        self,
        bundle: Bundle,
        folder: Path,
        recipe: Recipe,
        calibration: Calibration | None,
        progress: Progress,
        quantize: Callable[[QuantizedLayer], Iterable[tuple[str, Tensor]]] = quantize_layer,
    ) -> None:
        self.bundle, self.folder, self.recipe, self.progress = bundle, folder, recipe, progress
        self.calibration, self._quantize = calibration, quantize
        self.ranges = calibration.ranges(recipe.percentile) if calibration else {}

    def write(self) -> None:
        manifest = self.bundle.manifest
        graphs = dict(manifest.graphs)
        unchanged = [record for record in manifest.files if record.path not in self._changed_graphs]
        for record in unchanged:
            self._share(record.path)
        weights = [self._share_weights(record) for record in manifest.weights]
        for component in self.recipe.components:
            graphs[component], written = self._component(component)
            weights.append(weights_record(written, "quantized"))
        files = [*unchanged, *(file_record(self.folder, path) for path in self._changed_graphs)]
        if self.calibration is not None:
            self.calibration.save(self.folder / CALIBRATION)
            files = [record for record in files if record.path != CALIBRATION]
            files.append(file_record(self.folder, CALIBRATION))
        made = replace(
            manifest,
            producer=f"kontext-trt {__version__}",
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            graphs=graphs,
            files=tuple(files),
            weights=tuple(weights),
        )
        (self.folder / MANIFEST).write_bytes(made.to_json())

    @property
    def _changed_graphs(self) -> list[str]:
        return [self.bundle.graph(component).path for component in self.recipe.components]

    def _share(self, path: str) -> str:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        return share_file(self.bundle.file(path), self.folder / path)

    def _share_weights(self, record: WeightsRecord) -> WeightsRecord:
        how = self._share(record.path)
        return record if record.origin == "converted" else replace(record, origin=how)

    def _component(self, component: str) -> tuple[GraphRecord, Path]:
        record = self.bundle.graph(component)
        if record.quantization is not None and not reads_fp8_alone(record.quantization):
            raise QuantizationError(
                f"{component} of {self.bundle.path} is quantized already ({record.quantization.recipe}); quantize the "
                "bundle that it was made from, or export the checkpoint with --no-input-scales"
            )
        model = read_model(self.bundle, component)
        with reading(self.bundle.path / record.path):
            layers = self._edit(component, record, model)
        file = free_path(self.folder / WEIGHTS / f"{component}.{self.recipe.name}.safetensors")
        placed = self._write_weights(component, layers, file)
        graph = self.folder / record.path
        attach_weights(model, placed, graph.parent)
        with reading(self.bundle.path / record.path):  # names that are no text come to light when they are written
            ir.save(model, graph)
        return self._record(record, graph, layers), file

    def _edit(self, component: str, record: GraphRecord, model: ir.Model) -> list[QuantizedLayer]:
        """Put the recipe into the graph and return the layers whose weights are to be written."""
        if record.operators == Operators.FUSED.value:
            return self._edit_fused(component, record, model)
        fused = self.bundle.graph(CALIBRATED.name).operators == Operators.FUSED.value
        quantizer = GraphQuantizer(model, record.precision, self.ranges, fused=fused)
        linears = find_linears(model)
        attentions = find_attention(model, linears)
        if self.recipe.fp8_attention and component == CALIBRATED.name and not attentions:
            raise QuantizationError(
                f"{self.bundle.path} has its attention decomposed, and this recipe needs it as one operator; export "
                "the checkpoint with --operators single"
            )
        layers: list[QuantizedLayer] = []
        for name, linear in linears.items():
            chosen = self.recipe.format_of(component, name)
            if chosen is not None:
                layers.append(
                    QuantizedLayer(
                        name=name,
                        view=_view(linear.weight, linear.stored_scale),
                        format=chosen,
                        dtype=record.precision.number.safetensors,
                        scale_dtype=quantizer.scale_precision.number.safetensors,
                    )
                )
                quantizer.quantize(linear, chosen)
        for name, attention in attentions.items():
            if self.recipe.attention_is_fp8(component, name):
                quantizer.quantize_attention(attention)
        RemoveUnusedNodesPass()(model)
        add_functions(model, record.precision)
        return layers

    def _edit_fused(self, component: str, record: GraphRecord, model: ir.Model) -> list[QuantizedLayer]:
        views = {layer.name: _view(layer.weight) for one in fused_nodes(model) for layer in one.layers}
        layers = FusedQuantizer(model, component, self.recipe, self.ranges).quantize()
        add_functions(model, record.precision)
        return [
            QuantizedLayer(
                name=layer.name,
                view=views[layer.name],
                format=Fp8(),
                dtype=record.precision.number.safetensors,
                scale_dtype=Precision.FP32.number.safetensors,
                one_scale=True,
            )
            for layer in layers
        ]

    def _write_weights(self, component: str, layers: Sequence[QuantizedLayer], file: Path) -> dict[str, WeightPlace]:
        specs = {f"{layer.name}.{part}": spec for layer in layers for part, spec in layer.specs().items()}
        self.progress.start(f"quantizing {component}", sum(spec.size_bytes for spec in specs.values()))

        def pieces() -> Iterator[tuple[str, Tensor]]:
            for layer in layers:
                for part, values in self._quantize(layer):
                    yield f"{layer.name}.{part}", values

        return write_tensors(file, specs, pieces(), self.progress.advance)

    def _record(self, record: GraphRecord, graph: Path, layers: Sequence[QuantizedLayer]) -> GraphRecord:
        read = GraphFile.read(graph)
        products = Counter(read.quantized_products.values())
        if record.operators == Operators.FUSED.value:
            products["fp8"] = len(layers)
        fused_weights = sum(node.op_type == WEIGHT_ONLY for node in read.proto.graph.node)
        products["fp8_weights"] = fused_weights or sum(isinstance(layer.format, Fp8Weights) for layer in layers)
        places = read.weights.values()
        return replace(
            record,
            operators=Operators.FUSED.value if fused_weights else record.operators,
            weight_bytes=sum(place.size_bytes for place in places),
            weights=tuple(sorted({f"{WEIGHTS}/{place.file.name}" for place in places})),
            quantization=QuantizationRecord(
                recipe=self.recipe.name,
                recipe_sha256=self.recipe.sha256,
                calibration_sha256=self.calibration.sha256 if self.calibration else "",
                products={name: count for name, count in sorted(products.items()) if count},
                kept=self.recipe.keep,
            ),
        )


def _view(weight: ir.Value, stored_scale: ir.Value | None = None) -> View:
    """Return where a layer's weight lies."""
    tensor = weight.const_value
    assert isinstance(tensor, ir.ExternalTensor)
    return View(
        path=Path(tensor.path),
        dtype=ONNX[tensor.dtype.name].safetensors,
        shape=tuple(tensor.shape.numpy()),
        offset=tensor.offset or 0,
        scale=None if stored_scale is None else _scale(stored_scale),
    )


def _scale(stored: ir.Value) -> View | float:
    """Return the number that an FP8 weight is multiplied by, or where its rows' numbers lie."""
    value = stored.const_value
    assert value is not None
    return _view(stored) if isinstance(value, ir.ExternalTensor) else float(value.numpy())
