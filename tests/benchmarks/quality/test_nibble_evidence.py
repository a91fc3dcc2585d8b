"""Evidence of an ONNX file's MLPs, of which neighbours may be exchanged."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from kontext_trt.benchmarks.quality.nibble_evidence import evidence


@pytest.mark.parametrize("exchanged", [False, True])
def test_evidence_is_of_the_order_of_the_second_layers_inputs(tmp_path: Path, exchanged: bool) -> None:
    draw = np.random.default_rng(0)
    norms = np.exp(draw.standard_normal(256)).astype(np.float32)
    first = draw.standard_normal((64, 256)).astype(np.float32) * norms
    second = draw.standard_normal((256, 64)).astype(np.float32) * norms[:, None]
    if exchanged:
        second = second.reshape(-1, 2, 64)[:, ::-1].reshape(256, 64)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "a"], ["y"]), helper.make_node("MatMul", ["y", "b"], ["z"])],
        "mlp",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [1, 64])],
        [numpy_helper.from_array(first, "a"), numpy_helper.from_array(np.ascontiguousarray(second), "b")],
    )
    onnx.save(helper.make_model(graph), tmp_path / "mlp.onnx")
    (found,) = evidence(tmp_path / "mlp.onnx")
    assert (found < -100) if exchanged else (found > 100)
