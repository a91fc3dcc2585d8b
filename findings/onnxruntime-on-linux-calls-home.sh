#!/usr/bin/env bash
# Library: onnxruntime 1.32.0 and 1.31.1 (PyPI, Linux), with onnx 1.23.2, seen 2026-11-28.
#
# Expected: an inference library opens no network connection; ONNX Runtime's telemetry is known as a matter of Windows, and
# `disable_telemetry_events()` right after the import ends it.
# Happens: the wheels for Linux contain an uploader (1DS, with libcurl), switched on by default. In a process with a session
# it starts threads, opens event descriptors, and looks up Microsoft's collector; after `disable_telemetry_events()` it
# still does. Only ORT_DISABLE_TELEMETRY=1 in the environment before the library is loaded keeps it from starting.
#
# Seen:
#   1.31.1: looks up the collector: yes, event descriptors: yes
#   1.32.0: looks up the collector: yes, event descriptors: yes
#   1.32.0, disable_telemetry_events: looks up the collector: yes, event descriptors: yes
#   1.32.0, ORT_DISABLE_TELEMETRY=1: looks up the collector: no, event descriptors: no
#
# Here because of it: import_onnxruntime in runtime/executors/onnxruntime_session.py sets the variable. That telemetry is on is
# said in Privacy.md, which is in the wheel.
#
# Needs strace; without it the script ends with 77. No network is needed: what is looked for is the attempt.
set -euo pipefail
command -v strace > /dev/null || { echo "strace is not installed"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 1.31.1 1.32.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet --disable-pip-version-check "onnxruntime==$version" onnx==1.23.2
done
cat > "$folder/ask.py" <<'PYTHON'
import sys
import time

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

if "disable" in sys.argv:
    onnxruntime.disable_telemetry_events()
vector = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", vector[:1], vector[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
session.run(None, {"x": np.zeros(2, np.float32)})
time.sleep(12)
PYTHON
look() {
    local label=$1 version=$2
    shift 2
    strace -f -qq -e trace=sendto,sendmmsg,eventfd2 -o "$folder/calls" \
        "$folder/$version/bin/python" "$folder/ask.py" "$@"
    local lookup=no events=no
    grep -q 'events.*data.*\(sendto\|MSG\)\|sendto.*events' "$folder/calls" && lookup=yes
    grep -q 'eventfd2(' "$folder/calls" && events=yes
    echo "$label: looks up the collector: $lookup, event descriptors: $events"
}

{
    look "1.31.1" 1.31.1
    look "1.32.0" 1.32.0
    look "1.32.0, disable_telemetry_events" 1.32.0 disable
    export ORT_DISABLE_TELEMETRY=1
    look "1.32.0, ORT_DISABLE_TELEMETRY=1" 1.32.0
} | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
1.31.1: looks up the collector: yes, event descriptors: yes
1.32.0: looks up the collector: yes, event descriptors: yes
1.32.0, disable_telemetry_events: looks up the collector: yes, event descriptors: yes
1.32.0, ORT_DISABLE_TELEMETRY=1: looks up the collector: no, event descriptors: no
TEXT
diff "$folder/expected" "$folder/seen" || { echo "this has changed"; exit 1; }
