"""Bodies of fused operators that run outside of a graph."""

from __future__ import annotations

import numpy as np
import onnx
from fused_models import Sizes, model
from own_operators import session as session_of
from shared_kernels import drawn, whole_body

from kontext_trt.engine.components import Precision
from kontext_trt.runtime.operators.body import Body, Reference
from kontext_trt.runtime.operators.catalogue import DEFINITIONS
from kontext_trt.runtime.operators.cpu.bodies import BodySession
from kontext_trt.runtime.operators.cpu.memory import value_of


def test_a_body_is_given_its_attributes():
    """A session is of one value of each; the body itself is left as it is."""
    body = Body(Precision.FP32)
    body.give(body.node("Mul", "x", body.number(Reference("factor", float))), "y")
    x, y = np.arange(6, dtype=np.float32).reshape(2, 3), np.empty((2, 3), np.float32)
    for factor in (2.0, -0.5):
        run = BodySession(body, {"x": "fp32"}, {"y": "fp32"}, {"factor": factor}, 1)
        run({"x": value_of(x)}, {"y": value_of(y)})
        assert np.array_equal(y, x * np.float32(factor))


def test_extents_may_change_from_call_to_call():
    body = Body(Precision.FP32)
    body.give(body.node("Add", "x", "x"), "y")
    run = BodySession(body, {"x": "fp32"}, {"y": "fp32"}, {}, 1)
    for shape in ((1, 2), (5, 3), (2, 2)):
        x, y = np.full(shape, 3, np.float32), np.empty(shape, np.float32)
        run({"x": value_of(x)}, {"y": value_of(y)})
        assert (y == 6).all()


def test_it_computes_what_the_function_does_in_a_graph():
    """ONNX Runtime inlines the function there."""
    definition = DEFINITIONS["AttendBesideGelu_branched"]
    values, attributes = drawn(definition, Sizes(text=0, image=40))
    (alone,) = whole_body(definition, attributes, values)
    graph = onnx.load_from_string(model(definition, Precision.FP32, attributes))  # pyright: ignore[reportArgumentType]
    inlined = session_of(graph.SerializeToString(), None).run(None, values)[0]
    np.testing.assert_allclose(alone, inlined, atol=1e-5)
