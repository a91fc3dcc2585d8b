#!/usr/bin/env bash
# Library: TensorRT-RTX 1.7.1.116 (its ONNX parser; no GPU is needed), onnx 1.23.2, seen 2026-11-29.
#
# Expected: ONNX finds a model's own function by domain and name, so that `own.Relu` is what its body says, whatever
# ONNX's Relu is. onnx's reference evaluator does so.
# Happens: the parser looks at the name first. A function of any domain that is named as an operator which it knows is
# taken for that operator, and its body is not read: with a body of Neg, `own.Relu` becomes an activation, and nothing
# says so. Only where the operator takes other inputs, as the Upsample that ONNX has dropped, is there an error. Under a
# name that the parser does not know the body is parsed.
#
# Seen:
#   Own: -3.0 by its body, parsed as UNARY
#   Relu: -3.0 by its body, parsed as ACTIVATION
#   Upsample: -3.0 by its body, refused: Operator Upsample requires exactly 2 inputs. Current input size = 1.
#
# Here because of it: the autoencoder's fused operator is named UpsampleNearest (runtime/operators/picture_operators.py),
# and tests/runtime/operators/test_functions.py looks that no new one has a name of ONNX's.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorrt-rtx==1.7.1.116 onnx==1.23.2 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import numpy as np
import onnx
import tensorrt_rtx as trt
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator


def negating(name):
    """A model of one node, whose operator is a function of the domain `own` that negates."""
    x, y = (helper.make_tensor_value_info(one, TensorProto.FLOAT, [1, 1, 1, 1]) for one in "xy")
    body, standard = [helper.make_node("Neg", ["a"], ["b"])], helper.make_opsetid("", 23)
    model = helper.make_model(
        helper.make_graph([helper.make_node(name, ["x"], ["y"], domain="own")], "g", [x], [y]),
        functions=[helper.make_function("own", name, ["a"], ["b"], body, [standard])],
        opset_imports=[standard, helper.make_opsetid("own", 1)],
        ir_version=11,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def parsed(model):
    log = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model.SerializeToString()):
        return "refused: " + parser.get_error(0).desc().split("): ")[-1]
    return "parsed as " + " ".join(network.get_layer(i).type.name for i in range(network.num_layers))


for name in ("Own", "Relu", "Upsample"):
    model = negating(name)
    (value,) = ReferenceEvaluator(model).run(None, {"x": np.full((1, 1, 1, 1), 3, np.float32)})
    print(f"{name}: {value.item()} by its body, {parsed(model)}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
Own: -3.0 by its body, parsed as UNARY
Relu: -3.0 by its body, parsed as ACTIVATION
Upsample: -3.0 by its body, refused: Operator Upsample requires exactly 2 inputs. Current input size = 1.
TEXT
diff "$folder/expected" "$folder/seen" || { echo "this has changed"; exit 1; }
