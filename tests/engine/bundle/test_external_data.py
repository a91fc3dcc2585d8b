"""Where a graph's weights may lie: in a file below the graph, whole, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from kontext_trt import Bundle
from kontext_trt.engine.bundle.graph_file import GraphFile, map_weights
from kontext_trt.engine.bundle.onnx_schema import EXTERNAL, MESSAGES
from kontext_trt.engine.components import COMPONENTS
from kontext_trt.engine.errors import BundleError


def external(name: str = "w", shape: tuple[int, ...] = (2, 3), **places: str | None) -> onnx.TensorProto:
    """Float32 in weights/file by default; None leaves a key out."""
    tensor = onnx.TensorProto(name=name, data_type=1, dims=shape, data_location=onnx.TensorProto.EXTERNAL)
    for key, value in ({"location": "weights/file", "offset": "8", "length": "24"} | places).items():
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    return tensor


def saved(folder: Path, *initializers: onnx.TensorProto, nodes: tuple[onnx.NodeProto, ...] = ()) -> GraphFile:
    graph = onnx.helper.make_graph(list(nodes), "g", [], [], list(initializers))
    file = folder / "graph.onnx"
    file.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    return GraphFile.read(file)


def test_a_place_below_the_graph_is_read(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/file").write_bytes(bytes(8) + bytes(range(24)))
    graph = saved(tmp_path, external())
    (place,) = graph.weights.values()
    assert (place.file, place.offset, place.size_bytes) == (tmp_path / "weights/file", 8, 24)
    assert bytes(map_weights(graph)["w"]) == bytes(range(24))


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (external(location="/etc/hosts"), "'/etc/hosts' is no place inside"),
        (external(location="../outside"), "is no place inside"),
        (external(location=""), "is no place inside"),
        (external(location=None), "says offset, length of its place, not location"),
        (external(length=None), "says location, offset of its place"),
        (external(checksum="x"), "not location, offset and length"),
        (external(offset="-1"), "'-1', which is no number of bytes"),
        (external(offset="1e3"), "which is no number of bytes"),
        (external(offset="9" * 30), "which is no number of bytes"),
        (external(length="23"), "has 23 bytes outside the graph, and needs 24"),
        (external(shape=(2, -3)), r"the shape \[2, -3\]"),
    ],
)
def test_every_other_place_is_refused(tmp_path: Path, tensor: onnx.TensorProto, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        _ = saved(tmp_path, tensor).weights


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    """Readers differ in which of the two they take."""
    tensor = external()
    tensor.external_data.add(key="location", value="/etc/hosts")
    with pytest.raises(BundleError, match="not location, offset and length"):
        _ = saved(tmp_path, tensor).weights


@pytest.mark.parametrize("key", ["location", "offset"])
def test_a_place_that_is_not_utf8_is_refused(tmp_path: Path, key: str) -> None:
    data = saved(tmp_path, external(**{key: "abcdefgh"})).data
    (tmp_path / "graph.onnx").write_bytes(data.replace(b"abcdefgh", b"abc\xffefgh"))
    with pytest.raises(BundleError, match="has a name or a place that is not UTF-8"):
        _ = GraphFile.read(tmp_path / "graph.onnx").weights


def test_two_initializers_of_a_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there are two initializers w"):
        _ = saved(tmp_path, external(), external(location="weights/other")).weights


def _constant(tensor: onnx.TensorProto) -> onnx.NodeProto:
    return onnx.helper.make_node("Constant", [], ["c"], value=tensor)


def _in_a_subgraph(tensor: onnx.TensorProto) -> onnx.NodeProto:
    inner = onnx.helper.make_graph([_constant(tensor)], "inner", [], [])
    return onnx.helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)


@pytest.mark.parametrize("wrap", [_constant, _in_a_subgraph])
def test_only_initializers_may_lie_outside(tmp_path: Path, wrap) -> None:
    with pytest.raises(BundleError, match="c lies outside the graph, and is no initializer"):
        _ = saved(tmp_path, nodes=(wrap(external("c")),)).weights


def test_functions_and_sparse_tensors_are_looked_into(tmp_path: Path) -> None:
    file, opset = tmp_path / "graph.onnx", [onnx.helper.make_opsetid("", 23)]
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    model.functions.append(onnx.helper.make_function("d", "f", [], ["c"], [_constant(external("c"))], opset))
    file.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="c lies outside"):
        _ = GraphFile.read(file).weights
    del model.functions[0].node[:]
    model.functions[0].attribute_proto.append(onnx.helper.make_attribute("default", external("d")))
    file.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="d lies outside"):
        _ = GraphFile.read(file).weights
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=external("v"), indices=external("i")))
    file.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="v lies outside"):
        _ = GraphFile.read(file).weights


@pytest.mark.parametrize("data", [b"\xff" * 40, b"not a graph", bytes([0x3A, 0x05, 1])])
def test_what_is_no_graph_is_said(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "graph.onnx").write_bytes(data)
    with pytest.raises(BundleError, match="is not an ONNX graph"):
        _ = GraphFile.read(tmp_path / "graph.onnx").weights


def test_the_declared_schema_is_onnx_own() -> None:
    assert EXTERNAL == onnx.TensorProto.EXTERNAL
    for message, fields in MESSAGES.items():
        own = getattr(onnx, message).DESCRIPTOR
        for name, (number, kind, repeated) in fields.items():
            field = own.fields_by_name[name]
            assert (field.number, field.is_repeated) == (number, repeated), f"{message}.{name}"
            assert field.message_type is None or field.message_type.name == kind


def test_every_field_that_holds_tensors_or_graphs_is_declared() -> None:
    """So that none is missed when ONNX gets another."""
    holds = {"ModelProto", "GraphProto", "NodeProto", "AttributeProto", "TensorProto", "SparseTensorProto"}
    holds |= {"FunctionProto", "TrainingInfoProto", "StringStringEntryProto"}
    for message in holds:
        for field in getattr(onnx, message).DESCRIPTOR.fields:
            if field.message_type is not None and field.message_type.name in holds - {"StringStringEntryProto"}:
                assert field.name in MESSAGES[message], f"{message}.{field.name}"


def test_a_bundles_graphs_are_read_as_onnx_reads_them(bundle: Bundle) -> None:
    for component in COMPONENTS:
        graph = bundle.open_graph(component)
        own = onnx.load_from_string(graph.data)
        assert [node.op_type for node in graph.proto.graph.node] == [node.op_type for node in own.graph.node]
        places = {
            tensor.name: {entry.key: entry.value for entry in tensor.external_data}
            for tensor in own.graph.initializer
            if tensor.external_data
        }
        assert {name: (str(place.offset), str(place.size_bytes)) for name, place in graph.weights.items()} == {
            name: (place["offset"], place["length"]) for name, place in places.items()
        }
