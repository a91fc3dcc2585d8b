"""Adds the functions of fused operators to graphs that call them."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from ...engine.components import Precision
from ...runtime.operators.catalogue import DOMAIN
from ...runtime.operators.functions import function_bytes, used_definitions


def add_functions(model: ir.Model, precision: Precision) -> None:
    """Give a graph the functions of the fused operators that it calls, and no other of our domain."""
    for key in [key for key in model.functions if key[0] == DOMAIN]:
        del model.functions[key]
    for definition in used_definitions(node.op_type for node in model.graph if node.domain == DOMAIN).values():
        proto = onnx.FunctionProto.FromString(function_bytes(definition, precision))
        function = ir.serde.deserialize_function(proto)
        model.functions[function.identifier()] = function
