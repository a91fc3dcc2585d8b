"""Attention in FP8 is emulated as its graph has it: turned, or as graphs of before have it."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import torch

from kontext_trt import Bundle
from kontext_trt.export.emulate.bundle_modules import BundleGraph
from kontext_trt.export.emulate.emulation import QuantizedAttend, emulated_layers
from kontext_trt.export.graphs.constants import constant
from kontext_trt.export.graphs.formats import fake_fp8, hadamard, smoothed


def attention(graph: BundleGraph) -> QuantizedAttend:
    found = emulated_layers(graph)["single_transformer_blocks.0.attn.attend"]
    assert isinstance(found, QuantizedAttend)
    return found


def renamed(graph: BundleGraph, change: Callable[[str], str]) -> None:
    values = graph.model.graph.initializers
    for name in [name for name in values if ".attend." in name]:
        value = values.pop(name)
        value.name = change(name)
        values[change(name)] = value


def test_a_graph_of_before_keeps_queries_and_keys_as_they_are(tiny_quantized: Callable[[str], Bundle]):
    graph = BundleGraph.read(tiny_quantized("fp8-attention"), "denoiser")
    now = attention(graph)
    renamed(graph, lambda name: name.replace("hadamard_", ""))
    before = attention(graph)
    assert (before.q_scale, before.k_scale, before.v_scale) == (now.q_scale, now.k_scale, now.v_scale)
    q, k, v = (torch.randn(1, 2, 40, 32) + 5 * torch.randn(2, 1, 32) for _ in range(3))
    factors = 2.0**-2, 2.0**-3

    def wanted(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        operands = zip((q, k, v), (now.q_scale, now.k_scale, now.v_scale), strict=True)
        q, k, values = (fake_fp8(one, scale) for one, scale in operands)
        probabilities = fake_fp8((q @ k.transpose(-2, -1)).softmax(-1), 1 / 448)
        return (probabilities @ values).transpose(1, 2).flatten(2)

    assert torch.equal(before(q, k, v), wanted(q, k))
    assert torch.equal(now(q, k, v), wanted(hadamard(q, factors[0]), hadamard(smoothed(k, every=True), factors[1])))
    assert not torch.equal(before(q, k, v), now(q, k, v))


def test_before_queries_came_scaled_their_scale_was_another(tiny_quantized: Callable[[str], Bundle]):
    graph = BundleGraph.read(tiny_quantized("fp8-attention"), "denoiser")
    renamed(graph, lambda name: name.replace("hadamard_", ""))
    name, scaled = "single_transformer_blocks.0.attn.attend.q_scale", torch.tensor(0.125)
    constant(graph.model.graph, f"{name}_scaled", ir.tensor(scaled.numpy()))
    assert attention(graph).q_scale == scaled
