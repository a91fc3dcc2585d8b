"""Gives linear layers of a traced graph low-rank branches whose matrices are inputs: what LoRAs are swapped in by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from ...engine.branches import DOWN, UP, BranchedLayer, Branches, Packed
from ...engine.components import DENOISER, KNOWN_COMPONENTS, Precision
from .constants import whole_numbers
from .functions import add_functions
from .fused_nodes import fused_nodes
from .linears import LinearNodes, find_linears


def add_branches(models: Mapping[str, ir.Model], rank: int, precision: Precision) -> Branches | None:
    """Give the transformer's linear layers branches, and return where there are some; None for a rank of 0.

    Args:
        models: The graphs of all components, by name.
        rank: The rank of every branch.
        precision: What the transformer's graphs compute in.
    """
    if not rank:
        return None
    own = {name: model for name, model in models.items() if KNOWN_COMPONENTS[name].part == DENOISER.part}
    branches = Branches(rank=rank, layers={name: branched_layers(model) for name, model in own.items()})
    for name, model in own.items():
        add_branches_to(model, name, branches, precision)
    return branches


def branched_layers(model: ir.Model) -> tuple[BranchedLayer, ...]:
    """Return every linear layer of a graph: those by themselves first, then those within fused operators."""
    weights = {name: linear.weight for name, linear in find_linears(model).items()}
    weights |= {layer.name: layer.weight for one in fused_nodes(model) for layer in one.layers}
    return tuple(_described(name, weight) for name, weight in weights.items())


def _described(name: str, weight: ir.Value) -> BranchedLayer:
    assert weight.shape is not None
    outputs, inputs = weight.shape.numpy()
    return BranchedLayer(name=name, inputs=inputs, outputs=outputs)


def add_branches_to(model: ir.Model, component: str, branches: Branches, precision: Precision) -> None:
    """Add a component's packed matrices to its inputs, and to each of its linear layers the branch of its own.

    Args:
        model: The graph, whose linear layers are those of `branches`.
        component: The component's name.
        branches: The layers, and the rank.
        precision: What the graph computes in.
    """
    pieces: dict[str, dict[str, ir.Value]] = {DOWN: {}, UP: {}}
    for packed in branches.packed(component):
        kind = DOWN if packed.name.startswith(DOWN) else UP
        pieces[kind] |= _split(model.graph, packed, precision)
    downs, ups = pieces[DOWN], pieces[UP]
    for name, linear in find_linears(model).items():
        insert_branch(model.graph, linear, downs[name], ups[name], f"{name}.swapped", apart=True)
    for one in fused_nodes(model):
        if one.definition.operator.products:
            one.add_branches(downs, ups)
    add_functions(model, precision)


def _split(graph: ir.Graph, packed: Packed, precision: Precision) -> Mapping[str, ir.Value]:
    """Add a packed input to a graph, and return its layers' matrices."""
    kind = ir.TensorType(ir.DataType(precision.number.onnx_number))
    whole = ir.Value(name=packed.name, shape=ir.Shape(packed.shape), type=kind)
    graph.inputs.append(whole)
    groups = list(_equal_parts(graph, whole, packed.groups))
    each = packed.pieces // packed.groups
    values = [value for group in groups for value in _equal_parts(graph, group, each)]
    return dict(zip(packed.layers, values, strict=False))


def _equal_parts(graph: ir.Graph, whole: ir.Value, count: int) -> Iterator[ir.Value]:
    """Yield equal pieces of a matrix's rows, which one node at the beginning of the graph splits it into."""
    if count == 1:
        yield whole
        return
    assert whole.shape is not None
    rows, columns = whole.shape.numpy()
    node = ir.node("Split", [whole], {"axis": 0, "num_outputs": count}, num_outputs=count, name=f"{whole.name}.split")
    for number, value in enumerate(node.outputs):
        value.name, value.shape, value.type = f"{whole.name}.{number}", ir.Shape([rows // count, columns]), whole.type
    producer = whole.producer()
    if producer is None:
        graph.insert_before(graph[0], node)
    else:
        graph.insert_after(producer, node)
    yield from node.outputs


def insert_branch(
    graph: ir.Graph, linear: LinearNodes, down: ir.Value, up: ir.Value, name: str, *, apart: bool = False
) -> None:
    """Add (x down) up to a linear layer's product, for all that read it; x is what the product reads now.

    Args:
        graph: The graph.
        linear: The layer.
        down: (inputs, rank).
        up: (rank, outputs).
        name: What the branch's nodes are called by.
        apart: Give x another axis for the first product. TensorRT-RTX 1.7 makes one product of all that read the same
            x, for which it copies constant weights and matrices that are inputs together at every run: the memory and
            the time of all weights once more.
    """
    product, output, x = linear.product, linear.product.outputs[0], linear.input
    users = list(output.uses())
    first = whole_numbers(graph, "swapped_axis", [0]) if apart else None
    if first is not None:
        x = _before(product, "Unsqueeze", [x, first], f"{name}.apart")
    narrow = _before(product, "MatMul", [x, down], f"{name}.down")
    if first is not None:
        narrow = _before(product, "Squeeze", [narrow, first], f"{name}.together")
    wide = _before(product, "MatMul", [narrow, up], f"{name}.up")
    total = ir.node("Add", [output, wide], name=f"{name}.branch")
    total.outputs[0].name, total.outputs[0].shape, total.outputs[0].type = total.name, output.shape, output.type
    graph.insert_after(product, total)
    for user, index in users:
        user.replace_input_with(index, total.outputs[0])


def _before(node: ir.Node, operator: str, inputs: Sequence[ir.Value], name: str) -> ir.Value:
    made = ir.node(operator, list(inputs), name=name)
    made.outputs[0].name = f"{name}_output"
    graph = node.graph
    assert graph is not None
    graph.insert_before(node, made)
    return made.outputs[0]
