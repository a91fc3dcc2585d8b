"""What generated kernels compute, read from their text. The form is TensorRT-RTX 1.7's, the kernels are made up; the
real ones are counted in tests/engine/builder/test_build.py."""

from __future__ import annotations

from pathlib import Path

from kontext_trt.engine.plans.census import remarks, take_census
from kontext_trt.engine.plans.kernels import kernels_in_plan
from kontext_trt.engine.plans.layers import Layer

GELU = """extern "C" __global__ void __myl_MulTanh_0x12{variant}(
    __myln_vtype<__myln_bf16,2,4>* __restrict__ __v1)
{{
  if (true) {{
    __v2.values[0] = __myln_mul___myln_{kind}___myln_{kind}(__v1.values[0] , __v1.values[0]);
    __v2.values[1] = __myln_mul___myln_{kind}___myln_{kind}(__v1.values[1] , __v1.values[1]);
    __v3.values[0] = __myln_tanh___myln_{kind}___myln_{kind}(__v2.values[0]);
    __v3.values[1] = __myln_tanh___myln_{kind}___myln_{kind}(__v2.values[1]);
    __v4.values[0] = __myln_move___myln_{kind}___myln_{kind}(__v3.values[0]);
    __v5 = __myln_add___myln_int32___myln_int32(__v0 , __v0);
{more}  }}
}}
"""
ATTENTION = """extern "C" __global__ void _gemm_mha_v2_0x34(__myln_bf16* __v1)
{{
  __v15.initialize(DATA_TYPE_BF16, DATA_TYPE_BF16, DATA_TYPE_FP32, __v1, 2, 128, 0, {scale}f, 0x1p+0f, 0x1p+0f, false);
}}
"""


def plan(folder: Path, *texts: str) -> Path:
    path = folder / "a.plan"
    path.write_bytes(b"\0\xff" * 5000 + b"\0\xfe".join(text.encode() for text in texts) + b"\0" * 5000)
    return path


def gelu(kind: str, variant: str = "", more: str = "") -> str:
    return GELU.format(kind=kind, variant=variant, more=more)


def test_steps_are_counted_once_per_vector_and_kernel(tmp_path: Path) -> None:
    unrolled = "    __v6 = __myln_mul___myln_float___myln_float(__v1.values[0] , __v1.values[0]);\n"
    (kernel,) = kernels_in_plan(
        plan(tmp_path, gelu("float", "_com_vec", unrolled), gelu("float"), gelu("float", "_com"))
    )
    assert kernel.name == "__myl_MulTanh_0x12"
    assert kernel.steps == {("mul", "fp32"): 1, ("tanh", "fp32"): 1}
    assert kernel.steps_by_format == {"fp32": 2}


def test_quantizing_from_16_bits_is_a_step_that_is_rounded(tmp_path: Path) -> None:
    cast = "    __v7.values[{at}] = __myln_cast<__myln_fp8_e4m3, __myln_{kind}>(__v6);\n"
    for kind, wanted in (("bf16", "bf16"), ("float", "fp32")):
        more = "".join(cast.format(at=at, kind=kind) for at in range(2))
        kernels = kernels_in_plan(plan(tmp_path, gelu("float", more=more)))
        assert kernels[0].steps["quantize", wanted] == 1
        census = take_census([], attention_asked=0, weight_bytes=1, activation_bytes=1, io_bytes=1, kernels=kernels)
        assert bool(census.rounded) is (kind == "bf16"), "values and the scale's reciprocal would be rounded before"


def test_the_factor_of_attention_is_read(tmp_path: Path) -> None:
    (right,) = kernels_in_plan(plan(tmp_path, ATTENTION.format(scale="0x1p+0")))
    assert right.attention_scales == ("1",)
    (rounded,) = kernels_in_plan(plan(tmp_path, ATTENTION.format(scale="0x1.69p-4")))
    assert rounded.attention_scales == ("0.08813477",), "1 / sqrt(128) is 0.08838835"


def test_what_is_rounded_inside_operators_is_remarked_upon(tmp_path: Path) -> None:
    layer = Layer(
        name="__myl_MulTanh_myl0_3", kind="kgen", inputs=(), constants=(), kernel="__myl_MulTanh_0x12",
        nodes=("node_gelu",),
    )  # fmt: skip
    kernels = kernels_in_plan(plan(tmp_path, gelu("bf16"), ATTENTION.format(scale="0x1.69p-4")))
    numbers = {"attention_asked": 0, "weight_bytes": 1, "activation_bytes": 1, "io_bytes": 1}
    census = take_census([layer], kernels=kernels, **numbers)
    assert census.elementwise == {"bf16": 2}
    assert census.attention_scales == {"0.08813477": 1}
    assert list(remarks(census)) == [
        "functions are computed in 16 bits: tanh in bf16 for node_gelu",
        "attention kernels scale by factors that may be rounded, queries should come scaled: 1 by 0.08813477",
    ]
    exact = kernels_in_plan(plan(tmp_path, gelu("float"), ATTENTION.format(scale="0x1p+0")))
    assert list(remarks(take_census([layer], kernels=exact, **numbers))) == []


def test_a_plan_without_text_has_none(tmp_path: Path) -> None:
    assert kernels_in_plan(plan(tmp_path, "nothing of the kind")) == []
    (tmp_path / "a.plan").write_bytes(b"")
    assert kernels_in_plan(tmp_path / "a.plan") == []
