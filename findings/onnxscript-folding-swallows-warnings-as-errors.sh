#!/usr/bin/env bash
# Library: onnxscript 0.7.2 with onnx-ir 1.1.0 and NumPy 2.4.6, seen 2026-11-28.
#
# Expected: constant folding gives the same graph whatever a process does with Python's warnings; and a test suite whose
# warnings are errors finds a fold that warns.
# Happens: folding evaluates with NumPy. Log of a constant 0, whose result Where discards, prints NumPy's RuntimeWarning to
# the user of an export; where warnings are errors, the error is caught and logged at the level of a warning, the node is
# not folded, and the graph that comes out is another one.
#
# Seen:
#   warnings shown: [] ['divide by zero encountered in log']
#   warnings are errors: ['Log', 'Where'] []
#
# Here because of it: export/networks/t5.py looks T5's position buckets up in a table instead of tracing their logarithm,
# and the tests of tracing read the library's log.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnxscript==0.7.2 onnx-ir==1.1.0 onnx==1.23.2 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import logging
import warnings

import numpy as np
import onnx_ir as ir
from onnxscript import optimizer

logging.disable(logging.CRITICAL)


def model():
    """Where(x < x, Log(x), x) of a constant x = (0, 8)."""
    x = ir.Value(name="x", shape=ir.Shape([2]), type=ir.TensorType(ir.DataType.FLOAT))
    x.const_value = ir.tensor(np.array([0.0, 8.0], np.float32), name="x")
    log, less = ir.node("Log", [x]), ir.node("Less", [x, x])
    where = ir.node("Where", [less.outputs[0], log.outputs[0], x])
    (y,) = where.outputs
    y.name, y.shape, y.type = "y", ir.Shape([2]), ir.TensorType(ir.DataType.FLOAT)
    return ir.Model(ir.Graph([], [y], nodes=[log, less, where], initializers=[x], opset_imports={"": 20}), ir_version=10)


for mode, words in (("always", "shown"), ("error", "are errors")):
    folded = model()
    with warnings.catch_warnings(record=mode == "always") as seen:
        warnings.simplefilter(mode)
        optimizer.optimize(folded)
    left = [node.op_type for node in folded.graph]
    print(f"warnings {words}: {left} {[str(one.message) for one in seen or []]}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
warnings shown: [] ['divide by zero encountered in log']
warnings are errors: ['Log', 'Where'] []
TEXT
diff "$folder/expected" "$folder/seen" || { echo "this has changed"; exit 1; }
