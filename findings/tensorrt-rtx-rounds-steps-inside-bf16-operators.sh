#!/usr/bin/env bash
# Library: TensorRT-RTX 1.7.1.116 (no GPU is needed), onnx 1.23.2, seen 2026-11-28.
#
# Expected: an operator with bf16 input and output is computed as frameworks compute it: in float32 inside, rounded once.
# The network is strongly typed, but that says the types of tensors, not of steps.
# Happens: the compiler takes operators apart and rounds each step to bf16, constants too. Gelu becomes two additions, six
# products and a tanh in bf16. QuantizeLinear multiplies by the scale's reciprocal, itself rounded, in bf16, before it rounds
# to FP8. Between casts to float32 the same steps are in float32, in one kernel as before.
#
# Seen:
#   Gelu: {'add bf16': 2, 'mul bf16': 6, 'tanh bf16': 1}
#   Gelu between casts: {'add float': 2, 'mul float': 6, 'tanh float': 1}
#   QuantizeLinear: {'mul bf16': 2} to FP8 from bf16        (the second product dequantizes)
#   QuantizeLinear after a cast: {'mul bf16': 1, 'mul float': 1} to FP8 from float
#
# Here because of it: export/networks/layers.py applies activations between casts (InFloat32), export/graphs/quantizer.py
# casts before QuantizeLinear in graphs of opset 20, and engine/plans/kernels.py counts such steps in every plan.
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


def kernels(opset, nodes, constants=()):
    """The text of the kernels that make y (256, 512) of x, both in bf16, in a plan for sm_120."""
    x, y = (helper.make_tensor_value_info(name, BF16, [256, 512]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model)
    log = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    assert parser.parse(model.SerializeToString()), parser.get_error(0)
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM120, 0)
    plan = bytes(builder.build_serialized_network(network, config))
    found = re.findall(rb'extern "C" __global__ void (__myl_\w+?)(?:_com)?(?:_vec)?(\(.*?)\n}\n', plan, re.DOTALL)
    return b"".join(dict(found).values())  # of a kernel's variants, one


def steps(text):
    """The steps of the kernels, by type: of a vector, all elements are one."""
    found = set(re.findall(rb"(__v\d+)(?:\.values\[\d+\])? = __myln_(add|mul|tanh)___myln_(bf16|float)___", text))
    return dict(sorted(Counter(f"{name.decode()} {kind.decode()}" for _, name, kind in found).items()))


def quantized_from(text):
    return sorted({kind.decode() for kind in re.findall(rb"__myln_cast<__myln_fp8_e4m3, __myln_(bf16|float)>", text)})


def scalar(name, kind, value):
    return helper.make_tensor(name, kind, [], [value])


to_wide, to_bf16 = helper.make_node("Cast", ["x"], ["w"], to=FP32), helper.make_node("Cast", ["g"], ["y"], to=BF16)
gelu = helper.make_node("Gelu", ["x"], ["y"], approximate="tanh")
wide_gelu = helper.make_node("Gelu", ["w"], ["g"], approximate="tanh")
print("Gelu:", steps(kernels(20, [gelu])))
print("Gelu between casts:", steps(kernels(20, [to_wide, wide_gelu, to_bf16])))

constants = [scalar("zero", TensorProto.FLOAT8E4M3FN, 0.0), scalar("scale", BF16, 0.0225), scalar("wide", FP32, 0.0225)]
back = helper.make_node("DequantizeLinear", ["q", "scale"], ["y"])
narrow = kernels(20, [helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]), back], constants)
wide = kernels(20, [to_wide, helper.make_node("QuantizeLinear", ["w", "wide", "zero"], ["q"]), back], constants)
print("QuantizeLinear:", steps(narrow), "to FP8 from", *quantized_from(narrow))
print("QuantizeLinear after a cast:", steps(wide), "to FP8 from", *quantized_from(wide))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
Gelu: {'add bf16': 2, 'mul bf16': 6, 'tanh bf16': 1}
Gelu between casts: {'add float': 2, 'mul float': 6, 'tanh float': 1}
QuantizeLinear: {'mul bf16': 2} to FP8 from bf16
QuantizeLinear after a cast: {'mul bf16': 1, 'mul float': 1} to FP8 from float
TEXT
diff "$folder/expected" "$folder/seen" || { echo "this has changed"; exit 1; }
