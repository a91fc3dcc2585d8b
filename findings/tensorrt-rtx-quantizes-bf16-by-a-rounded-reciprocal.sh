#!/usr/bin/env bash
# Library: TensorRT-RTX 1.7.1.116 (no GPU is needed), onnx 1.23.2, seen 2026-11-28.
#
# Expected: QuantizeLinear divides by its scale and rounds once, to FP8. Below opset 23 scale and values have one type, so
# the scale is a bf16 number; the division itself need not lose anything.
# Happens: values are multiplied by the scale's reciprocal, both in bf16, and only the product is rounded to FP8: two more
# roundings of up to 0.2 % each. With a cast to float32 before it and a scale in float32 the product is in float32.
#
# Seen:
#   bf16: multiplied in bf16, cast from bf16
#   float32: multiplied in bf16+float, cast from float   (the bf16 product dequantizes)
#
# Here because of it: export/graphs/quantizer.py casts to float32 before QuantizeLinear in graphs of opset 20.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorrt-rtx==1.7.1.116 onnx==1.23.2 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import re
from collections import Counter

import onnx
import tensorrt_rtx as trt
from onnx import TensorProto, helper

BF16, FP32 = TensorProto.BFLOAT16, TensorProto.FLOAT


def plan(nodes, constants):
    """The plan, for sm_120, of a graph of opset 20 from x to y (256, 512), both in bf16."""
    x, y = (helper.make_tensor_value_info(name, BF16, [256, 512]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    log = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    assert parser.parse(model.SerializeToString()), parser.get_error(0)
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM120, 0)
    return bytes(builder.build_serialized_network(network, config))


def quantizing(data):
    """The types that values are multiplied in, and cast to FP8 from."""
    text = b"".join(re.findall(rb'extern "C" __global__ void \w+\(.*?\n}\n', data, re.DOTALL))
    products = {kind.decode() for kind in re.findall(rb"__myln_mul___myln_(bf16|float)___", text)}
    casts = {kind.decode() for kind in re.findall(rb"__myln_cast<__myln_fp8_e4m3, __myln_(bf16|float)>", text)}
    return f"multiplied in {'+'.join(sorted(products))}, cast from {'+'.join(sorted(casts))}"


def scalar(name, kind, value):
    return helper.make_tensor(name, kind, [], [value])


back = helper.make_node("DequantizeLinear", ["q", "narrow"], ["y"])
zero, narrow = scalar("zero", TensorProto.FLOAT8E4M3FN, 0.0), scalar("narrow", BF16, 0.0225)
print("bf16:", quantizing(plan([helper.make_node("QuantizeLinear", ["x", "narrow", "zero"], ["q"]), back], [zero, narrow])))
wide = [
    helper.make_node("Cast", ["x"], ["w"], to=FP32),
    helper.make_node("QuantizeLinear", ["w", "wide", "zero"], ["q"]),
    back,
]
print("float32:", quantizing(plan(wide, [zero, narrow, scalar("wide", FP32, 0.0225)])))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
bf16: multiplied in bf16, cast from bf16
float32: multiplied in bf16+float, cast from float
TEXT
diff "$folder/expected" "$folder/seen" || { echo "this has changed"; exit 1; }
