#!/usr/bin/env bash
# Library: TensorRT-RTX 1.7.1.116 (its ONNX parser and compiler; no GPU is needed), onnx 1.23.2, seen 2026-11-28.
#
# Expected: ONNX's Attention (opset 23) has its scale as a float32 attribute, 1/sqrt(width) by default, and a fused kernel
# takes its factor in float32, so bf16 attention is scaled by 0.0883883 at width 128.
# Happens: the parser multiplies queries and keys each by the scale's root in their own type: 0.297302 becomes 0.296875 in
# bf16, and the compiler folds the two into a kernel's factor of 0.0881348, 0.29 % too small. Setting the attribute does not
# help; a scale of exactly 1 does, with queries that were scaled in float32 before.
#
# Seen:
#   by default: 0.0881348
#   asked for: 0.0881348
#   scale 1: 1.0000000
#
# Here because of it: export/networks/layers.py scales queries in float32 and asks for a scale of 1, and
# engine/plans/kernels.py reads the factor from the plan.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorrt-rtx==1.7.1.116 onnx==1.23.2 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import re

import onnx
import tensorrt_rtx as trt
from onnx import TensorProto, helper


def plan(**attributes):
    """The plan, for sm_120, of attention of two heads of 128 over 256 tokens in bf16."""
    shape, kind = [1, 2, 256, 128], TensorProto.BFLOAT16
    q, k, v, y = (helper.make_tensor_value_info(name, kind, shape) for name in "qkvy")
    graph = helper.make_graph([helper.make_node("Attention", ["q", "k", "v"], ["y"], **attributes)], "g", [q, k, v], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
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


def scales(data):
    """What the kernel's text multiplies scores by."""
    found = re.findall(rb"initialize\(DATA_TYPE_BF16[^;]*?, (0x[0-9a-f.]+p[+-]\d+)f", data)
    return sorted({f"{float.fromhex(one.decode()):.7f}" for one in found})


print("wanted:", f"{128 ** -0.5:.7f}")
print("by default:", *scales(plan()))
print("asked for:", *scales(plan(scale=128**-0.5)))
print("scale 1:", *scales(plan(scale=1.0)))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
wanted: 0.0883883
by default: 0.0881348
asked for: 0.0881348
scale 1: 1.0000000
TEXT
diff "$folder/expected" "$folder/seen" || { echo "this has changed"; exit 1; }
