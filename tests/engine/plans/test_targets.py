"""Which GPU is meant, and whether it can compute what is asked."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from kontext_trt.engine.errors import OptionError, TargetError
from kontext_trt.engine.flavour import Flavour, FlavourName
from kontext_trt.engine.plans.targets import check_formats, choose_flavour, make_target, parse_gpu
from kontext_trt.engine.system.gpus import Gpu

HOPPER = Gpu(index=0, name="NVIDIA H200", major=9, minor=0, memory_bytes=139 << 30)
TIMED: Any = SimpleNamespace(name="tensorrt", version="11.4.0.106", ahead_of_time=False, capabilities=None)


@pytest.mark.parametrize(
    ("text", "capability"),
    [
        ("sm_89", "sm_89"),
        ("SM120", "sm_120"),
        ("8.6", "sm_86"),
        ("rtx 5090", "sm_120"),
        ("NVIDIA RTX 6000 Ada Generation", "sm_89"),
        ("NVIDIA RTX 5000 Ada Generation Laptop GPU", "sm_89"),
        ("NVIDIA H100 80GB HBM3", "sm_90"),
        ("Tesla T4", "sm_75"),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", "sm_89"),
        ("NVIDIA GeForce RTX 3080 Laptop GPU", "sm_86"),
        ("RTX-A6000", "sm_86"),
        ("RTX 6000 Ada", "sm_89"),
        ("RTX PRO 6000 Blackwell", "sm_120"),
        ("NVIDIA A100-SXM4-80GB", "sm_80"),
        ("H200", "sm_90"),
        ("5090", "sm_120"),
        ("4070 Ti", "sm_89"),
        ("portable", "portable"),
    ],
)
def test_gpus_are_known_by_number_and_by_name(text: str, capability: str) -> None:
    assert parse_gpu(text, ()) == capability


def test_current_is_the_first_gpu() -> None:
    assert parse_gpu("current", [HOPPER]) == "sm_90"


def test_current_needs_a_gpu() -> None:
    with pytest.raises(TargetError, match="name one, for example --gpu sm_120"):
        parse_gpu("current", ())


def test_an_unknown_name_asks_for_the_number() -> None:
    with pytest.raises(TargetError, match="'voodoo 2' is no GPU known by name; give its compute capability"):
        parse_gpu("voodoo 2", ())


def test_what_can_be_built_ahead_of_time_is_the_librarys_word(rtx: Flavour) -> None:
    assert set(rtx.capabilities or ()) == {
        name.replace("SM", "sm_") for name in rtx.trt.ComputeCapability.__members__ if name.startswith("SM")
    }
    for capability in rtx.capabilities or ():
        assert make_target(rtx, capability, ()).capability == capability


def test_tensorrt_rtx_refuses_hopper_and_names_tensorrt(rtx: Flavour) -> None:
    with pytest.raises(
        TargetError, match=r"has no sm_90; it builds for .*sm_120.*--flavour tensorrt on the GPU itself"
    ):
        make_target(rtx, "sm_90", ())


def test_tensorrt_builds_only_for_the_gpu_at_hand() -> None:
    assert make_target(TIMED, "sm_90", [HOPPER]).gpu == "NVIDIA H200"
    with pytest.raises(TargetError, match=r"sm_89 was asked for and this machine has NVIDIA H200 \(sm_90\)"):
        make_target(TIMED, "sm_89", [HOPPER])
    with pytest.raises(TargetError, match=r"this machine has no GPU.*--flavour tensorrt_rtx"):
        make_target(TIMED, "sm_89", ())


SOUND: Mapping[str, tuple[str, ...]] = {
    "sm_75": ("fp32", "fp16"),
    "sm_80": ("fp32", "fp16", "bf16"),
    "sm_89": ("fp16", "bf16", "fp8"),
    "sm_90": ("bf16", "fp8"),
    "sm_100": ("bf16", "fp8", "nvfp4"),
    "sm_120": ("fp16", "bf16", "fp8", "nvfp4"),
    "portable": ("fp32", "fp16", "bf16"),
}


@pytest.mark.parametrize("capability", SOUND)
def test_what_a_gpu_can_compute_is_accepted(capability: str) -> None:
    check_formats(capability, SOUND[capability])


@pytest.mark.parametrize(
    ("capability", "number_format", "advice"),
    [
        ("sm_75", "bf16", "sm_75 has no bf16, which starts at sm_80; export with --precision fp16"),
        ("sm_86", "fp8", "sm_86 has no fp8, which starts at sm_89; export with --precision bf16"),
        ("sm_75", "fp8", "export with --precision fp16"),
        ("sm_89", "nvfp4", "sm_89 has no nvfp4, which sm_10x and sm_12x have; export or quantize to fp8"),
        ("sm_90", "nvfp4", "export or quantize to fp8"),
        ("sm_86", "nvfp4", "export or quantize to bf16"),
        ("portable", "fp8", "the portable target"),
    ],
)
def test_a_refusal_names_what_can_be_used(capability: str, number_format: str, advice: str) -> None:
    with pytest.raises(TargetError) as refusal:
        check_formats(capability, ["fp32", number_format])
    assert advice in str(refusal.value)


def test_the_flavour_is_chosen_by_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    both = (FlavourName.TENSORRT, FlavourName.TENSORRT_RTX)
    monkeypatch.setattr("kontext_trt.engine.plans.targets.installed_flavours", lambda: both)
    assert choose_flavour("auto", "sm_90", [HOPPER]) is FlavourName.TENSORRT
    assert choose_flavour("auto", "sm_89", [HOPPER]) is FlavourName.TENSORRT_RTX
    assert choose_flavour("tensorrt_rtx", "sm_90", [HOPPER]) is FlavourName.TENSORRT_RTX
    assert choose_flavour("tensorrt-rtx", "sm_90", [HOPPER]) is FlavourName.TENSORRT_RTX
    monkeypatch.setattr("kontext_trt.engine.plans.targets.installed_flavours", lambda: both[1:])
    assert choose_flavour("auto", "sm_90", [HOPPER]) is FlavourName.TENSORRT_RTX
    with pytest.raises(OptionError, match="flavour must be one of auto, tensorrt, tensorrt_rtx, not 'trt'"):
        choose_flavour("trt", "sm_90", ())
