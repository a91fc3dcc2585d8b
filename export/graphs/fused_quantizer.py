"""Makes fused operators compute in FP8: by calibrated scales, handed over in FP8 from operator to operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir
import torch

from ...runtime.operators.catalogue import DEFINITIONS, DOMAIN
from ...runtime.operators.definition import Format, scale_of
from .formats import fp8_scale
from .fused_nodes import FusedLayer, FusedNode, fused_nodes
from .quantized_weights import SCALE
from .ranges import operand_name, range_of
from .recipes import Fp8, Recipe


class FusedQuantizer:
    """Edits the fused operators of one graph in place.

    An operator is quantized if the recipe quantizes all of its layers. What it reads is rounded once, where it is
    computed, by one scale for all who read it.

    Args:
        model: The graph.
        component: The name of its component.
        recipe: What is quantized, and how.
        ranges: The largest magnitudes of activations, as for `GraphQuantizer`.
    """

    def __init__(self, model: ir.Model, component: str, recipe: Recipe, ranges: Mapping[str, float]) -> None:
        self._model, self._component, self._recipe, self._ranges = model, component, recipe, ranges
        self._nodes = fused_nodes(model)
        self._formats: dict[int, Format] = {}
        self._scales: dict[int, dict[str, float]] = {}
        self._weight_scales: dict[int, dict[str, ir.Value]] = {}

    def quantize(self) -> list[FusedLayer]:
        """Put the recipe into the graph and return the layers whose weights become FP8.

        Raises:
            QuantizationError: There is no range for an activation.
        """
        self._formats = {id(one): one.definition.format for one in self._nodes}
        self._scales = {id(one): {} for one in self._nodes}
        self._weight_scales = {id(one): {} for one in self._nodes}
        layers = [layer for one in self._nodes if self._quantized(one) for layer in self._take_operands(one)]
        self._round_operands(layers)
        for one in self._nodes:
            self._take_attention(one)
        for one in self._nodes:
            form = self._formats[id(one)]
            if form != one.definition.format:
                one.become(form, self._scales[id(one)], self._weight_scales[id(one)])
        return layers

    def _quantized(self, one: FusedNode) -> bool:
        chosen = [self._recipe.format_of(self._component, layer.name) for layer in one.layers]
        assert all(form is None or isinstance(form, Fp8) for form in chosen), "check_graphs refuses other formats"
        return bool(chosen) and all(isinstance(form, Fp8) for form in chosen)

    def _take_operands(self, one: FusedNode) -> list[FusedLayer]:
        self._formats[id(one)] = replace(self._formats[id(one)], operands=True)
        layers = list(one.layers)
        for layer in layers:
            layer.weight.type, layer.weight.const_value = ir.TensorType(ir.DataType.FLOAT8E4M3FN), None
            name = f"{layer.name}.{SCALE}"
            scale = ir.Value(name=name, shape=ir.Shape([]), type=ir.TensorType(ir.DataType.FLOAT))
            self._model.graph.initializers[name] = scale
            self._weight_scales[id(one)][scale_of(layer.product.weight)] = scale
        return layers

    def _round_operands(self, layers: Sequence[FusedLayer]) -> None:
        """Make every operand FP8 where it is made, or by an operator of its own where others read it as it is."""
        readers: dict[int, list[FusedLayer]] = {}
        for layer in layers:
            readers.setdefault(id(layer.x), []).append(layer)
        by_node = {id(one.node): one for one in self._nodes}
        for found in readers.values():
            value = found[0].x
            scale = self._scale(max(range_of(self._ranges, layer.name) for layer in found))
            fp8_uses = [
                (by_node[id(user)], index)
                for user, index in value.uses()
                if id(user) in by_node and self._reads_fp8(by_node[id(user)], index)
            ]
            for one, index in fp8_uses:
                self._scales[id(one)][scale_of(one.definition.inputs[index])] = scale
            producer = by_node.get(id(value.producer()))
            results = producer.definition.operator.results if producer is not None else ()
            if producer is not None and len(fp8_uses) == len(value.uses()) and self._name(producer, value) in results:
                self._formats[id(producer)] = replace(self._formats[id(producer)], result=True)
                self._scales[id(producer)]["result_scale"] = scale
            else:
                self._add_quantize(value, scale, fp8_uses)

    def _reads_fp8(self, one: FusedNode, index: int) -> bool:
        name = one.definition.inputs[index]
        return self._formats[id(one)].operands and any(name == each.x for each in one.definition.operator.products)

    def _name(self, one: FusedNode, value: ir.Value) -> str:
        return one.definition.operator.outputs[one.node.outputs.index(value)]

    def _add_quantize(self, value: ir.Value, scale: float, uses: Sequence[tuple[FusedNode, int]]) -> None:
        definition = DEFINITIONS["Quantize_to_fp8"]
        node = ir.node(definition.name, [value], {"result_scale": scale}, domain=DOMAIN)
        node.outputs[0].name, node.outputs[0].shape = f"{value.name}_fp8", value.shape
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT8E4M3FN)
        first = next(node for node in self._model.graph if any(node is one.node for one, _ in uses))
        self._model.graph.insert_before(first, node)
        for one, index in uses:
            one.node.replace_input_with(index, node.outputs[0])

    def _take_attention(self, one: FusedNode) -> None:
        """Make attention's products FP8, where what it gives is FP8 already: kernels give nothing else."""
        name = one.attention_name
        if name is None or not self._recipe.attention_is_fp8(self._component, name):
            return
        if not self._formats[id(one)].result:
            return
        scales = {
            scale_of(part): self._scale(range_of(self._ranges, operand_name(f"{name}.attend", part))) for part in "qkv"
        }
        self._formats[id(one)] = replace(self._formats[id(one)], attention=True)
        self._scales[id(one)] |= scales
        one.node.name = f"{name}.attend"
        heads = next(each for each in self._nodes if each.node is one.input("v").producer())
        self._formats[id(heads)] = replace(self._formats[id(heads)], result=True)
        self._scales[id(heads)] |= scales

    def _scale(self, amax: float) -> float:
        return float(fp8_scale(torch.tensor(amax), torch.float32))
