"""Denoisers' graphs for a part of the text: what is edited, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from kontext_trt import Bundle, BundleError
from kontext_trt.engine.bundle.graph_file import GraphFile
from kontext_trt.engine.components import Operators
from kontext_trt.runtime.executors.ports import PortType
from kontext_trt.runtime.executors.shared_graph import own_text, shared_graph, shared_port
from kontext_trt.runtime.operators.catalogue import DOMAIN

LENGTH = 512


class Group:
    """As much of one as the number of a rank's tokens depends on."""

    shares = None

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


def tokens(value: onnx.ValueInfoProto) -> int:
    return value.type.tensor_type.shape.dim[1].dim_value


def numbers(graph: onnx.GraphProto) -> dict[str, list[int]]:
    """The constant whole numbers of a graph, by name."""
    whole = onnx.TensorProto.INT64
    found = {one.name: numpy_helper.to_array(one) for one in graph.initializer if one.data_type == whole}
    for node in graph.node:
        for one in node.attribute:
            if node.op_type == "Constant" and one.name == "value" and one.t.data_type == whole:
                found[node.output[0]] = numpy_helper.to_array(one.t)
    return {name: np.ravel(array).tolist() for name, array in found.items()}


def ranges(graph: onnx.GraphProto) -> list[tuple[list[int], str]]:
    """The beginnings of slices, and what their ends are made of."""
    known, by_output = numbers(graph), {name: node for node in graph.node for name in node.output}

    def end(name: str) -> str:
        node = by_output.get(name)
        if node is None or name in known:
            return str(known.get(name, name))
        return f"{node.op_type}({', '.join(end(one) for one in node.input[: 2 if node.op_type == 'Add' else 1])})"

    return [(known.get(one.input[1], []), end(one.input[2])) for one in graph.node if one.op_type == "Slice"]


def edited(bundle: Bundle, component: str, own: int) -> tuple[onnx.GraphProto, onnx.GraphProto]:
    """A component's graph before and after."""
    file = bundle.open_graph(component)
    return onnx.load_from_string(file.data).graph, onnx.load_from_string(shared_graph(file, LENGTH, own)).graph


def check_edited(before: onnx.GraphProto, after: onnx.GraphProto, own: int) -> None:
    assert [one.op_type for one in before.node] == [one.op_type for one in after.node]
    weights = {one.name: one for one in before.initializer}
    added = [one for one in after.initializer if one.name not in weights]
    assert [numpy_helper.to_array(one).tolist() for one in added] == [[own], own]
    assert all(one == weights[one.name] for one in after.initializer if one.name in weights)
    for one, other in zip(before.input, after.input, strict=True):
        if one.name == "text_tokens":
            assert (tokens(one), tokens(other)) == (LENGTH, own)
        else:
            assert one == other
    assert list(before.output) == list(after.output)
    begins = [(LENGTH, begin == [LENGTH], end) for begin, end in ranges(before)]
    assert any(there for _, there, _ in begins)
    for (_, there, end), (begin, changed) in zip(begins, ranges(after), strict=True):
        assert (begin == [own]) == there
        assert changed == (end.replace(f"[{LENGTH}]", f"[{own}]") if there else end)
    for node in after.node:
        for one in node.attribute:
            assert one.name != "text_length" or one.i == own
    outputs = {name for node in after.node if node.domain == DOMAIN for name in node.output}
    made = [one for one in after.value_info if one.name in outputs and len(one.type.tensor_type.shape.dim) > 1]
    assert made
    assert LENGTH not in map(tokens, made)


@pytest.mark.parametrize("own", [1, 171, 256])
def test_all_that_depends_on_the_text_is_edited(fused_path: Path, own: int):
    before, after = edited(Bundle.open(fused_path), "denoiser", own)
    check_edited(before, after, own)
    assert sum(node.op_type == "JointLinear" for node in after.node) == 2


@pytest.mark.parametrize("recipe", ["fp8", "fp8-attention"])
def test_of_quantized_graphs_too(fused_quantized: Callable[..., Bundle], recipe: str):
    before, after = edited(fused_quantized(recipe), "denoiser", 171)
    check_edited(before, after, 171)


@pytest.mark.check  # the transformer traced for this
def test_of_cached_denoisers_too(caching: Callable[..., Bundle]):
    bundle = caching("fused-branched", operators=Operators.FUSED, lora_rank=4)
    for component in ("denoiser", "cached_denoiser"):
        check_edited(*edited(bundle, component, 171), 171)


def test_graphs_of_single_operators_are_refused(bundle: Bundle):
    with pytest.raises(BundleError, match=r"denoiser\.onnx has no fused operators that part text from pictures, so it"):
        edited(bundle, "denoiser", 256)


def graph_of(tmp_path: Path, nodes: Iterable[onnx.NodeProto], text: int = LENGTH) -> GraphFile:
    """A graph of text and image tokens, with these nodes behind the heads."""
    inputs = [
        helper.make_tensor_value_info("text_tokens", 1, ["b", text, 8]),
        helper.make_tensor_value_info("latents", 1, ["b", "n", 8]),
        helper.make_tensor_value_info("n", 7, []),
    ]
    heads = helper.make_node("JointHeads_branched", ["text_tokens", "latents"], ["q", "k", "v"], domain=DOMAIN)
    constants = {"length": LENGTH, "begin": [LENGTH], "axis": [1], "step": [1], "flat": [-1], "zero": [0]}
    initializers = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in constants.items()]
    graph = helper.make_graph([heads, *nodes], "g", inputs, [helper.make_tensor_value_info("y", 1, None)], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23), helper.make_opsetid(DOMAIN, 2)])
    path = tmp_path / "denoiser.onnx"
    onnx.save(model, path)
    return GraphFile.read(path)


def cut(end: str, output: str = "y", begin: str = "begin") -> onnx.NodeProto:
    return helper.make_node("Slice", ["q", begin, end, "axis", "step"], [output])


SUM = helper.make_node("Add", ["length", "n"], ["sum"])
LIST = helper.make_node("Reshape", ["sum", "flat"], ["end"])


def test_two_ends_that_are_one_sum_are_edited_once(tmp_path: Path):
    file = graph_of(tmp_path, [SUM, LIST, cut("end", "other"), cut("end")])
    after = onnx.load_from_string(shared_graph(file, LENGTH, 100)).graph
    assert ranges(after) == [([100], "Reshape(Add([100], n))")] * 2


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([helper.make_node("Mul", ["length", "n"], ["sum"]), LIST, cut("end")], "to an end that is not known"),
        ([helper.make_node("Add", ["length", "length"], ["sum"]), LIST, cut("end")], "to an end that is not known"),
        ([cut("n")], "to an end that is not known"),
        ([cut("begin", begin="zero")], "takes as many tokens as there are of text"),
        (
            [helper.make_node("JointLinear", ["q"], ["y", "z"], domain=DOMAIN, text_length=100)],
            "parts 100 text tokens from pictures, not 512",
        ),
    ],
    ids=["product", "twice", "input", "text", "another length"],
)
def test_what_is_not_known_is_refused(tmp_path: Path, nodes: list[onnx.NodeProto], words: str):
    file = graph_of(tmp_path, nodes)
    with pytest.raises(BundleError, match=f"{words}.* so it cannot be shared by several devices; export"):
        shared_graph(file, LENGTH, 256)


def test_another_shape_of_the_text_is_refused(tmp_path: Path):
    file = graph_of(tmp_path, [SUM, LIST, cut("end")], text=100)
    with pytest.raises(BundleError, match=r"takes text_tokens of another shape than \(b, 512, hidden\)"):
        shared_graph(file, LENGTH, 256)


def test_a_ranks_part_of_the_text_is_told(fused_path: Path):
    bundle = Bundle.open(fused_path)
    assert [own_text(bundle, "denoiser", Group(rank, 3)) for rank in range(3)] == [171, 171, 170]  # pyright: ignore[reportArgumentType]
    assert own_text(bundle, "denoiser", None) is None
    assert own_text(bundle, "conditioner", Group(0, 3)) is None  # pyright: ignore[reportArgumentType]
    port = PortType(output=False, element_type="fp32", shape=(None, 512, 64))
    assert shared_port("text_tokens", port, 171).shape == (None, 171, 64)
    assert shared_port("latents", port, 171) == port
