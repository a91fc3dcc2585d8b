#!/usr/bin/env bash
# Library: onnxruntime-gpu 1.31.1, seen 2026-11-28 without a GPU and on one NVIDIA H200 (driver 580.159.04).
#
# Expected: naming the CUDA device that is the default anyway, device_id 0, changes nothing; a session whose own log level
# is 3 (errors) prints no warnings.
# Happens: for every session whose provider is told a device_id, the library's default logger, which the session's level
# does not reach, prints "No registered plugin EP device found", whether the device is there or not. Six networks opened
# are six warnings.
#
# Seen:
#   without device_id: 0
#   device_id 0: 1
#
# Here because of it: runtime/executors/onnxruntime_cuda.py leaves device_id out for device 0. Raising the level of the
# default logger would hide "Failed to create CUDAExecutionProvider" as well, which is worth reading.
#
# Needs no GPU; downloads 250 MB. Python 3.11 to 3.13.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime-gpu==1.31.1 onnx==1.23.2
cat > "$folder/ask.py" <<'PYTHON'
import sys

import onnxruntime
from onnx import TensorProto, helper

x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
provider = {"device_id": "0"} if sys.argv[1:] == ["named"] else {}
providers = [("CUDAExecutionProvider", provider), "CPUExecutionProvider"]
onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
PYTHON
count() { "$folder/venv/bin/python" "$folder/ask.py" "$@" 2>&1 | grep -c "No registered plugin EP device found" || true; }
{ echo "without device_id: $(count)"; echo "device_id 0: $(count named)"; } | tee "$folder/seen"
printf 'without device_id: 0\ndevice_id 0: 1\n' > "$folder/expected"
diff "$folder/expected" "$folder/seen" || { echo "this has changed"; exit 1; }
