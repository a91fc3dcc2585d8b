"""Queries and keys are turned in a graph as the emulation turns them, and attention stays what it was."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from kontext_trt.engine.errors import QuantizationError
from kontext_trt.export.emulate.emulation import turned_in_graphs
from kontext_trt.export.graphs.formats import fake_fp8, fp8_scale, turning_factors
from kontext_trt.export.graphs.turned_attention import insert_turning


def turned(width: int, dtype: ir.DataType = ir.DataType.FLOAT) -> tuple[ir.Model, tuple[float, float]]:
    """A graph that turns queries and keys (2, 3, tokens, width), and the factors of their ranges."""
    given = [
        ir.Value(name=name, shape=ir.Shape([2, 3, tokens, width]), type=ir.TensorType(dtype))
        for name, tokens in (("queries", "n"), ("keys", "s"))
    ]
    graph = ir.Graph(given, [], nodes=[], opset_imports={"": 23}, name="turned")

    def insert(operator: str, inputs: list[ir.Value], name: str, **attributes: int) -> ir.Value:
        node = ir.node(operator, inputs, attributes, name=name)
        node.outputs[0].name = f"{name}_output"
        graph.append(node)
        return node.outputs[0]

    q, k, *factors = insert_turning(graph, insert, *given, "attend", dtype)
    for one in (q, k):
        one.type = ir.TensorType(dtype)
        graph.outputs.append(one)
    return ir.Model(graph, ir_version=11), (factors[0], factors[1])


@pytest.mark.parametrize("width", [16, 32, 64, 128, 256])
def test_the_graph_computes_what_is_emulated(width: int):
    model, factors = turned(width)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    generator = torch.Generator().manual_seed(width)
    random = partial(torch.randn, generator=generator)
    q, k = random(2, 3, 5, width) / width**0.5, random(2, 3, 150, width) + 3 * random(3, 1, width)
    found = session.run(None, {"queries": q.numpy(), "keys": k.numpy()})
    for one, wanted in zip(found, turned_in_graphs(q, k), strict=True):
        np.testing.assert_allclose(one, wanted.numpy(), rtol=0, atol=2e-5)
    scores, before = torch.from_numpy(found[0] @ found[1].swapaxes(-2, -1)), q @ k.transpose(-2, -1)
    torch.testing.assert_close(scores.softmax(-1), before.softmax(-1), rtol=0, atol=2e-5)
    assert factors[0] * factors[1] == pytest.approx(1)


def test_matrices_are_exact_in_16_bits():
    for width in (16, 32, 64, 128, 256):
        assert np.prod(turning_factors(width)) * width == 1
        matrices = [
            value.const_value.numpy().astype(np.float64)
            for name, value in turned(width, ir.DataType.BFLOAT16)[0].graph.initializers.items()
            if name.startswith("hadamard") and value.const_value is not None
        ]
        assert len(matrices) == 1 + (width.bit_length() - 1) % 2, "for even powers of two both have the same"
        assert np.array_equal(matrices[0] @ matrices[-1], np.eye(width))


def test_in_16_bits_the_mean_is_taken_in_float32():
    nodes = list(turned(64, ir.DataType.BFLOAT16)[0].graph)
    assert [node.op_type for node in nodes] == ["Cast", "ReduceMean", "Sub", "Cast", "MatMul", "MatMul"]
    assert nodes[0].attributes.get_int("to") == ir.DataType.FLOAT


def test_fp8_rounds_what_keys_have_in_common_no_more():
    generator = torch.Generator().manual_seed(1)
    random = partial(torch.randn, generator=generator)
    q, k, v = random(1, 2, 64, 64) / 8, random(1, 2, 400, 64) + 8 * random(2, 1, 64), random(1, 2, 400, 64)

    def attention(*operands: torch.Tensor) -> torch.Tensor:
        return (operands[0] @ operands[1].transpose(-2, -1)).softmax(-1) @ v

    exact = attention(q, k)

    def error(*operands: torch.Tensor) -> float:
        rounded = (fake_fp8(one, fp8_scale(one.abs().amax(), torch.float32)) for one in operands)
        return float((attention(*rounded) - exact).norm() / exact.norm())

    assert error(*turned_in_graphs(q, k)) < error(q, k) / 3


@pytest.mark.parametrize("width", [24, 512, "d"])
def test_other_widths_are_refused(width: int):
    with pytest.raises(QuantizationError, match=f"attend has heads of width {width}; FP8 needs a power of two up to"):
        turned(width)
