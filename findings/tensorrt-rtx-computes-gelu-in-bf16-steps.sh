#!/usr/bin/env bash
# Library: TensorRT-RTX 1.7.1.116 (no GPU is needed), onnx 1.23.2, seen 2026-11-28.
#
# Expected: an ONNX operator with bf16 input and output is computed as its framework computes it: in float32 inside, and
# rounded once. Torch does so for GELU, and the strongly typed network says the types of tensors, not of steps.
# Happens: the compiler takes Gelu apart into two additions, six products and a tanh, and rounds each of the nine to bf16,
# its constants too. Between two casts to float32 they are nine steps in float32, in the same one kernel.
#
# Seen:
#   Gelu: {'add bf16': 2, 'mul bf16': 6, 'tanh bf16': 1}
#   between casts: {'add float': 2, 'mul float': 6, 'tanh float': 1}
#
# Here because of it: export/networks/layers.py applies activations between casts (InFloat32), and the census of a plan
# counts the steps of its kernels (engine/plans/kernels.py).
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


def plan(nodes):
    """The plan, for sm_120, of what makes y (256, 512) of x in bf16."""
    x, y = (helper.make_tensor_value_info(name, BF16, [256, 512]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y])
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


def steps(data):
    """The steps of the kernel, by type: of a vector, all elements are one."""
    body = re.search(rb'extern "C" __global__ void \w+\((.*?)\n}\n', data, re.DOTALL)[1]
    found = set(re.findall(rb"(__v\d+)(?:\.values\[\d+\])? = __myln_(add|mul|tanh)___myln_(bf16|float)___", body))
    return dict(sorted(Counter(f"{name.decode()} {kind.decode()}" for _, name, kind in found).items()))


gelu = helper.make_node("Gelu", ["x"], ["y"], approximate="tanh")
wide = [
    helper.make_node("Cast", ["x"], ["w"], to=FP32),
    helper.make_node("Gelu", ["w"], ["g"], approximate="tanh"),
    helper.make_node("Cast", ["g"], ["y"], to=BF16),
]
print("Gelu:", steps(plan([gelu])))
print("between casts:", steps(plan(wide)))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
Gelu: {'add bf16': 2, 'mul bf16': 6, 'tanh bf16': 1}
between casts: {'add float': 2, 'mul float': 6, 'tanh float': 1}
TEXT
diff "$folder/expected" "$folder/seen" || { echo "this has changed"; exit 1; }
