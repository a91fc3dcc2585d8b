#!/usr/bin/env bash
# Library: TensorRT-RTX 1.7.1.116 (no GPU is needed), onnx 1.23.2, seen 2026-11-29.
#
# Expected: a low-rank branch, x @ down @ up with matrices that are parts of an input (a LoRA that is swapped), beside a
# layer's product x @ w with a constant w: two narrow products more, whose activations are of the tokens' size. Layers
# come one after another, so more layers take no more memory.
# Happens: the compiler merges all products of one x into one, the narrow one among them, and for that copies constant
# weights and parts of the input together at every run, into the memory of activations. With the usual auxiliary streams
# that is done for all layers at once, as it hangs on no activation: every weight lies there a second time. Where x
# gets a dimension more before the narrow product, nothing is merged.
#
# Seen:
#   alone, usual streams: 4 layers more take the memory of 0.0 of their 12 weights
#   alone, one stream: 4 layers more take the memory of 0.0 of their 12 weights
#   beside, usual streams: 4 layers more take the memory of 12.2 of their 12 weights
#   beside, one stream: 4 layers more take the memory of 0.5 of their 12 weights
#   apart, usual streams: 4 layers more take the memory of 0.0 of their 12 weights
#   apart, one stream: 4 layers more take the memory of 0.0 of their 12 weights
#
# Here because of it: branches stand apart in export/graphs/branches.py, and plans with branches have one stream.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorrt-rtx==1.7.1.116 onnx==1.23.2 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import re

import numpy as np
import tensorrt_rtx as trt
from onnx import TensorProto, checker, helper

BF16, WIDTH, RANK, TOKENS = TensorProto.BFLOAT16, 1024, 16, 512


class Log(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
        self.activations = 0

    def log(self, severity, message):
        found = re.search(r"Total Activation Memory: (\d+) bytes", message)
        self.activations += int(found[1]) if found else 0


def activations(layers, road, streams):
    """The memory of activations, for sm_120, of layers of three constant products of one x, each with a narrow branch."""
    nodes, inputs, constants = [], [helper.make_tensor_value_info("x0", BF16, [1, TOKENS, WIDTH])], []
    constants.append(helper.make_tensor("axis", TensorProto.INT64, [1], [0]))
    draw = np.random.default_rng(0)
    if road != "alone":
        for name, shape in (("down", [3 * layers * WIDTH, RANK]), ("up", [3 * layers * RANK, WIDTH])):
            inputs.append(helper.make_tensor_value_info(name, BF16, shape))
            parts = [f"{name}{n}" for n in range(3 * layers)]
            nodes.append(helper.make_node("Split", [name], parts, axis=0, num_outputs=len(parts)))
    for n in range(3 * layers):
        layer, x = n // 3, f"x{n // 3}"
        weight = (draw.standard_normal((WIDTH, WIDTH), dtype=np.float32) / 32).view(np.uint32) >> 16
        constants.append(helper.make_tensor(f"w{n}", BF16, [WIDTH, WIDTH], weight.astype(np.uint16).tobytes(), raw=True))
        nodes.append(helper.make_node("MatMul", [x, f"w{n}"], [f"wide{n}"]))
        out = f"wide{n}"
        if road != "alone":
            narrow = f"narrow{n}"
            if road == "apart":
                nodes.append(helper.make_node("Unsqueeze", [x, "axis"], [f"apart{n}"]))
                nodes.append(helper.make_node("MatMul", [f"apart{n}", f"down{n}"], [f"four{n}"]))
                nodes.append(helper.make_node("Squeeze", [f"four{n}", "axis"], [narrow]))
            else:
                nodes.append(helper.make_node("MatMul", [x, f"down{n}"], [narrow]))
            nodes.append(helper.make_node("MatMul", [narrow, f"up{n}"], [f"branch{n}"]))
            nodes.append(helper.make_node("Add", [f"wide{n}", f"branch{n}"], [f"sum{n}"]))
            out = f"sum{n}"
        nodes.append(helper.make_node("Identity", [out], [f"out{n}"]))
        if n % 3 == 2:
            nodes.append(helper.make_node("Mul", [f"out{n - 2}", f"out{n - 1}"], [f"mul{n}"]))
            nodes.append(helper.make_node("Add", [f"mul{n}", f"out{n}"], [f"add{n}"]))
            nodes.append(helper.make_node("Sigmoid", [f"add{n}"], [f"x{layer + 1}"]))
    last = helper.make_tensor_value_info(f"x{layers}", BF16, [1, TOKENS, WIDTH])
    graph = helper.make_graph(nodes, "g", inputs, [last], initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    checker.check_model(model)
    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    assert parser.parse(model.SerializeToString()), parser.get_error(0)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if streams is not None:
        config.max_aux_streams = streams
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM120, 0)
    assert builder.build_serialized_network(network, config)
    return log.activations


for road in ("alone", "beside", "apart"):
    for words, streams in (("usual streams", None), ("one stream", 0)):
        few, many = (activations(layers, road, streams) for layers in (2, 6))
        taken = (many - few) / (2 * WIDTH * WIDTH)
        print(f"{road}, {words}: 4 layers more take the memory of {taken:.1f} of their 12 weights")
PYTHON
TMPDIR="$folder" "$folder/venv/bin/python" "$folder/ask.py" 2> /dev/null | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
alone, usual streams: 4 layers more take the memory of 0.0 of their 12 weights
alone, one stream: 4 layers more take the memory of 0.0 of their 12 weights
beside, usual streams: 4 layers more take the memory of 12.2 of their 12 weights
beside, one stream: 4 layers more take the memory of 0.5 of their 12 weights
apart, usual streams: 4 layers more take the memory of 0.0 of their 12 weights
apart, one stream: 4 layers more take the memory of 0.0 of their 12 weights
TEXT
diff "$folder/expected" "$folder/seen" || { echo "this has changed"; exit 1; }
