"""Reads and edits the fused operators of a traced graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from ...runtime.operators.catalogue import DEFINITIONS, DOMAIN, VERSION, WEIGHT_ONLY
from ...runtime.operators.definition import Definition, Format, Kind, Product
from .linears import LinearNodes, find_linears
from .trace import tensor_name


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedLayer:
    """Holds a linear layer within a fused operator.

    Attributes:
        name: The layer's name.
        product: Which product of the operator it is.
        x: What it reads.
        weight: The initializer, (outputs, inputs).
        bias: The initializer, (outputs,).
    """

    name: str
    product: Product
    x: ir.Value
    weight: ir.Value
    bias: ir.Value


class FusedNode:
    """Wraps a node of a fused operator, and gives it another format when asked to."""

    def __init__(self, node: ir.Node) -> None:
        self.node = node
        self.definition: Definition = DEFINITIONS[node.op_type]

    def input(self, name: str) -> ir.Value:
        value = self.node.inputs[self.definition.inputs.index(name)]
        assert value is not None
        return value

    @property
    def layers(self) -> Iterator[FusedLayer]:
        """The linear layers that it computes."""
        for product in self.definition.operator.products:
            weight = self.input(product.weight)
            yield FusedLayer(
                name=tensor_name(weight.name or "").removesuffix(".weight"),
                product=product,
                x=self.input(product.x),
                weight=weight,
                bias=self.input(product.bias),
            )

    @property
    def attention_name(self) -> str | None:
        """The name of the attention that it computes, by the module around it; None if it computes none."""
        if not self.definition.operator.attention:
            return None
        heads = self.input("v").producer()
        assert heads is not None
        return list(FusedNode(heads).layers)[-1].name.rpartition(".")[0]

    def number(self, attribute: str) -> float:
        return self.node.attributes[attribute].as_float()

    def add_branches(self, downs: Mapping[str, ir.Value], ups: Mapping[str, ir.Value]) -> None:
        """Give the node's linear layers low-rank branches, whose matrices come by the layers' names."""
        matrices: dict[str, ir.Value] = {}
        for layer in self.layers:
            matrices |= {layer.product.down: downs[layer.name], layer.product.up: ups[layer.name]}
        self.become(replace(self.definition.format, branches=True), {}, matrices)

    def become(self, form: Format, scales: Mapping[str, float], inputs: Mapping[str, ir.Value]) -> None:
        """Give the node another format.

        Args:
            form: The format.
            scales: The values of the attributes that are scales, by name.
            inputs: The inputs that the format has and the node has not, by name.
        """
        found = {name: self.input(name) for name in self.definition.inputs} | dict(inputs)
        made = Definition(self.definition.operator, form)
        outputs = self.node.outputs
        replacement = ir.Node(
            DOMAIN,
            made.name,
            [found[name] for name in made.inputs],
            [self.node.attributes[name] for name in made.operator.attributes]
            + [ir.AttrFloat32(name, scales[name]) for name in made.scales],
            num_outputs=len(outputs),
            name=self.node.name,
        )
        graph = self.node.graph
        assert isinstance(graph, ir.Graph)
        ir.convenience.replace_nodes_and_values(
            graph, self.node, [self.node], [replacement], list(outputs), list(replacement.outputs)
        )
        for value, kind in zip(replacement.outputs, made.output_kinds, strict=True):
            if kind is Kind.FP8:
                value.type = ir.TensorType(ir.DataType.FLOAT8E4M3FN)
        self.node, self.definition = replacement, made


def fused_nodes(model: ir.Model) -> list[FusedNode]:
    """Return the fused operators of a graph, in its order."""
    return [FusedNode(node) for node in model.graph if node.domain == DOMAIN and node.op_type in DEFINITIONS]


def insert_weight_only(model: ir.Model, linear: LinearNodes, parts: tuple[ir.Value, ir.Value]) -> None:
    """Put the fused operator of an FP8 weight and its rows' scales in the place of a linear layer's product."""
    model.opset_imports[DOMAIN] = VERSION
    product = linear.product
    made = ir.node(WEIGHT_ONLY, [linear.input, *parts], domain=DOMAIN, name=linear.name)
    made.outputs[0].name = f"{linear.name}.output"
    ir.convenience.replace_nodes_and_values(
        model.graph, product, [product], [made], list(product.outputs), list(made.outputs)
    )


def weight_only_nodes(model: ir.Model) -> dict[str, FusedNode]:
    """Return the nodes of linear layers whose weights alone are FP8, by the names of their modules."""
    found = (one for one in fused_nodes(model) if one.node.op_type == WEIGHT_ONLY)
    return {(one.input("weight").name or "").removesuffix(".weight"): one for one in found}


def linear_names(model: ir.Model) -> list[str]:
    """Return the names of all linear layers of a graph, within fused operators and by themselves."""
    return [*find_linears(model), *(layer.name for one in fused_nodes(model) for layer in one.layers)]
