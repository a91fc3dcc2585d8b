#!/usr/bin/env bash
# Library: TensorRT-RTX 1.7.1.116 (no GPU is needed), onnx 1.23.2, seen 2026-11-28.
#
# Expected: weights in FP8 that are dequantized for a product in bf16 take half the memory of bf16, and their dequantized
# values one layer's memory for the moment that the product takes.
# Happens: products that share an input (query, key and value; a gated MLP's two) are merged into one, whose dequantized
# weight is written out beforehand. It hangs on constants alone, so that is done for all layers first, and the memory of
# activations holds all of them at once: more than FP8 saved. A weight that hangs on its layer's input (0 times a value of it
# is added) is dequantized in its turn; the products are then not merged.
#
# Seen:
#   as they are: 4 layers more take the memory of 4.0 layers of dequantized weights
#   hanging on their layer's input: 4 layers more take the memory of 0.0 layers of dequantized weights
#
# Here because of it: GraphQuantizer._in_its_turn in export/graphs/quantizer.py.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorrt-rtx==1.7.1.116 onnx==1.23.2 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import re

import numpy as np
import onnx
import tensorrt_rtx as trt
from onnx import TensorProto, helper

BF16, FP32, FP8, WIDTH = TensorProto.BFLOAT16, TensorProto.FLOAT, TensorProto.FLOAT8E4M3FN, 2048


class Log(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
        self.activations = 0

    def log(self, severity, message):
        found = re.search(r"Total Activation Memory: (\d+) bytes", message)
        self.activations += int(found[1]) if found else 0


def activations(layers, hanging):
    """The memory of activations, for sm_120, of layers of two products each, of one x (64, WIDTH) in bf16, FP8 weights."""
    nodes, constants = [], [
        helper.make_tensor("scale", BF16, [], [0.01]),
        helper.make_tensor("nought", FP32, [], [0.0]),
        *(helper.make_tensor(name, TensorProto.INT64, [2], values) for name, values in (("begin", [0, 0]), ("end", [1, 1]))),
    ]
    codes = np.random.default_rng(0).integers(0x20, 0x40, (layers, 2, WIDTH * WIDTH), np.uint8)
    for layer in range(layers):
        x = f"x{layer}"
        if hanging:  # 0 times a value of the layer's input is added to each weight
            nodes += [
                helper.make_node("Slice", [x, "begin", "end"], [f"one{layer}"]),
                helper.make_node("Cast", [f"one{layer}"], [f"float{layer}"], to=FP32),
                helper.make_node("Mul", [f"float{layer}", "nought"], [f"zero{layer}"]),
                helper.make_node("Cast", [f"zero{layer}"], [f"none{layer}"], to=BF16),
            ]
        for part in range(2):
            name = f"{layer}_{part}"
            constants.append(helper.make_tensor(f"weight{name}", FP8, [WIDTH, WIDTH], codes[layer, part].tobytes(), raw=True))
            nodes.append(helper.make_node("DequantizeLinear", [f"weight{name}", "scale"], [f"wide{name}"]))
            if hanging:
                nodes.append(helper.make_node("Add", [f"wide{name}", f"none{layer}"], [f"turn{name}"]))
            weight = f"turn{name}" if hanging else f"wide{name}"
            nodes.append(helper.make_node("MatMul", [x, weight], [f"product{name}"]))
        nodes.append(helper.make_node("Mul", [f"product{layer}_0", f"product{layer}_1"], [f"x{layer + 1}"]))
    x, y = (helper.make_tensor_value_info(name, BF16, [64, WIDTH]) for name in ("x0", f"x{layers}"))
    graph = helper.make_graph(nodes, "g", [x], [y], initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    assert parser.parse(model.SerializeToString()), parser.get_error(0)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM120, 0)
    assert builder.build_serialized_network(network, config) is not None
    return log.activations


for hanging in (False, True):
    few, many = activations(2, hanging), activations(6, hanging)
    dequantized = 2 * 2 * WIDTH * WIDTH  # of one layer, in bf16
    words = "hanging on their layer's input" if hanging else "as they are"
    print(f"{words}: 4 layers more take the memory of {(many - few) / dequantized:.1f} layers of dequantized weights")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
as they are: 4 layers more take the memory of 4.0 layers of dequantized weights
hanging on their layer's input: 4 layers more take the memory of 0.0 layers of dequantized weights
TEXT
diff "$folder/expected" "$folder/seen" || { echo "this has changed"; exit 1; }
