"""Every fused operator, traced: its body, run by ONNX Runtime, equals the eager torch that it was traced from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from kontext_trt.engine.components import Precision
from kontext_trt.export.graphs.functions import add_functions
from kontext_trt.export.graphs.trace import _quiet
from kontext_trt.export.networks.fused_operations import FusedOperations
from kontext_trt.export.networks.layers import Rope
from kontext_trt.export.networks.operations import Projections, Stream
from kontext_trt.export.tiny import tiny_config
from kontext_trt.runtime.operators.catalogue import OPERATORS, WEIGHT_ONLY
from kontext_trt.runtime.operators.picture_operators import PICTURE_OPERATORS

CONFIG = tiny_config().transformer
HIDDEN = CONFIG.hidden
FORM = FusedOperations(CONFIG)


class Applied(nn.Module):
    """A step of the form, as a module of the layers that it is given."""

    def __init__(self, step: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.step = step
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *inputs: Tensor) -> Any:
        return self.step(self, *inputs)


def tokens(length: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, length, HIDDEN)


def vectors(count: int) -> list[Tensor]:
    return [torch.randn(2, 1, HIDDEN) for _ in range(count)]


def tables(length: int) -> tuple[Tensor, Tensor]:
    angles = torch.randn(length, CONFIG.head_width // 2)
    return angles.cos(), angles.sin()


def rope(cos: Tensor, sin: Tensor) -> Rope:
    return Rope(cos=cos, sin=sin, single_operator=True)


def layers(prefix: str = "") -> dict[str, nn.Module]:
    made: dict[str, nn.Module] = {f"{prefix}{name}": nn.Linear(HIDDEN, HIDDEN) for name in "qkv"}
    norms = {f"{prefix}norm_{name}": nn.RMSNorm(CONFIG.head_width, eps=1e-6) for name in "qk"}
    for norm in norms.values():
        nn.init.normal_(norm.weight, 1, 0.1)
    return made | norms


def projections(module: Any, prefix: str = "") -> Projections:
    names = ("q", "k", "v", "norm_q", "norm_k")
    return Projections(**{name: getattr(module, f"{prefix}{name}") for name in names})


CASES: dict[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]] = {
    "Gate": lambda: (
        Applied(lambda _, x, change, gate: FORM.settled(Stream(x, change, gate))),
        (tokens(9), tokens(9), *vectors(1)),
    ),
    "Modulate": lambda: (
        Applied(lambda _, x, shift, scale: FORM.modulate(Stream(x), shift, scale)[1]),
        (tokens(9), *vectors(2)),
    ),
    "GateModulate": lambda: (
        Applied(lambda _, x, change, gate, shift, scale: FORM.modulate(Stream(x, change, gate), shift, scale)),
        (tokens(9), tokens(9), *vectors(3)),
    ),
    "Linear": lambda: (Applied(lambda m, x: FORM.linear(m.layer, x), layer=nn.Linear(HIDDEN, 48)), (tokens(9),)),
    "LinearGelu": lambda: (Applied(lambda m, x: FORM.gelu(m.layer, x), layer=nn.Linear(HIDDEN, 48)), (tokens(9),)),
    "Heads": lambda: (
        Applied(
            lambda m, queried, x, a, b, c, d: FORM.heads(projections(m), queried, rope(a, b), x, rope(c, d)),
            **layers(),
        ),
        (tokens(5), tokens(9), *tables(5), *tables(9)),
    ),
    "JointHeads": lambda: (
        Applied(
            lambda m, text, image, a, b: FORM.joint_heads(
                projections(m, "text_"), text, projections(m), image, rope(a, b)
            ),
            **layers("text_"),
            **layers(),
        ),
        (tokens(5), tokens(9), *tables(14)),
    ),
    "Attend": lambda: (
        Applied(lambda m, q, k, v: FORM.mixed(m.attend, q, k, v), attend=FORM.attend()),
        (tokens(5), tokens(9), tokens(9)),
    ),
    "AttendBesideGelu": lambda: (
        Applied(
            lambda m, q, k, v, x: FORM.mixed_beside_gelu(m.attend, q, k, v, m.layer, x),
            attend=FORM.attend(),
            layer=nn.Linear(HIDDEN, 48),
        ),
        (tokens(5), tokens(9), tokens(9), tokens(5)),
    ),
    "JointLinear": lambda: (
        Applied(
            lambda m, joint: FORM.joint_linear(m.text, m.image, joint, 5),
            text=nn.Linear(HIDDEN, HIDDEN),
            image=nn.Linear(HIDDEN, HIDDEN),
        ),
        (tokens(14),),
    ),
}


def test_every_operator_that_is_traced_has_a_case():
    elsewhere = {name for name, one in OPERATORS.items() if one.fp8_alone or one in PICTURE_OPERATORS}
    assert set(CASES) == set(OPERATORS) - elsewhere - {WEIGHT_ONLY}, "quantizing makes those of products"


@pytest.mark.parametrize("name", CASES)
def test_the_body_equals_eager_torch(name: str):
    torch.manual_seed(0)
    module, inputs = CASES[name]()
    with torch.no_grad(), _quiet():
        eager = module(*inputs)
        program = torch.export.export(module.eval(), inputs, strict=False)
        exported = torch.onnx.export(program, dynamo=True, opset_version=23, optimize=False, verbose=False)
    assert exported is not None
    model = exported.model
    assert [node.op_type for node in model.graph if node.domain] == [name]
    add_functions(model, Precision.FP32)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    data = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    given = dict(zip([port.name for port in session.get_inputs()], (x.numpy() for x in inputs), strict=True))
    for ours, theirs in zip(session.run(None, given), eager if isinstance(eager, tuple) else [eager], strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=2e-5, atol=2e-5)
