"""Number formats, against brute force, torch and ModelOpt."""

from __future__ import annotations

import warnings

import pytest
import torch

from kontext_trt.export.fp4 import FP4_VALUES, fp4_values, pack, unpack
from kontext_trt.export.graphs.formats import (
    fake_fp8,
    fake_nvfp4,
    fp4_codes,
    fp8_scale,
    nvfp4_scale,
    round_up,
    to_fp8,
    to_nvfp4,
)


def test_every_fp4_value_survives() -> None:
    values = torch.tensor([*FP4_VALUES, *(-value for value in FP4_VALUES[1:])])
    assert torch.equal(fp4_values(fp4_codes(values)), values)


def test_fp4_rounds_to_the_nearest_and_ties_to_the_even_code() -> None:
    x = torch.arange(-8, 8, 1 / 16)
    found = fp4_values(fp4_codes(x))
    table = torch.tensor(FP4_VALUES)
    distance = (x.abs()[:, None] - table).abs()
    nearest = distance == distance.min(1, keepdim=True).values
    even = nearest & (torch.arange(8) % 2 == 0)
    code = torch.where(nearest.sum(1) > 1, even.float().argmax(1), nearest.float().argmax(1))
    assert torch.equal(found.abs(), table[code])
    assert torch.equal(found.sign()[found != 0], x.sign()[found != 0])


def test_codes_are_packed_low_half_first() -> None:
    codes = torch.arange(16, dtype=torch.uint8).reshape(2, 8)
    assert pack(codes)[0, 0] == 0x10
    assert torch.equal(unpack(pack(codes)), codes)


def test_fp8_saturates() -> None:
    assert to_fp8(torch.tensor([500.0, -1e9])).to(torch.float32).tolist() == [448, -448]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_largest_value_is_never_clipped(dtype: torch.dtype) -> None:
    amax = torch.rand(1000, generator=torch.Generator().manual_seed(0)) * 100
    scale = fp8_scale(amax, dtype)
    assert scale.dtype == dtype
    assert (amax / scale.to(torch.float32) <= 448 * (1 + 2**-23)).all(), "but for the division's own rounding"


def test_zeros_have_a_scale() -> None:
    assert round_up(torch.zeros(2), torch.bfloat16).tolist() == [1, 1]
    assert fake_nvfp4(torch.zeros(1, 32), nvfp4_scale(torch.tensor(0.0))).tolist() == [[0.0] * 32]


def test_errors_are_those_of_the_formats() -> None:
    """E4M3 rounds to 4 significant bits: at most 1/16 of a value. E2M1 to 2: at most 1/4 of it, or 1/4 of a step."""
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    scale = fp8_scale(x.abs().amax(), torch.float32)
    error = (fake_fp8(x, scale) - x).abs()
    assert (error <= x.abs() / 16 + scale * 2**-10).all()
    quantized = to_nvfp4(x, nvfp4_scale(x.abs().amax()))
    steps = (quantized.scales.to(torch.float32) * quantized.scale).repeat_interleave(16, -1)
    clipped = x.abs() > 6 * steps  # a block scale may have been rounded down
    assert ((quantized.values() - x).abs() <= torch.maximum(x.abs() / 4, steps / 4) + 1e-7)[~clipped].all()
    assert clipped.float().mean() < 0.05


def test_nvfp4_is_modelopts() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from modelopt.torch.quantization.qtensor import NVFP4QTensor
    x = torch.randn(32, 128, generator=torch.Generator().manual_seed(1))
    theirs, block_scales, scale = NVFP4QTensor.quantize(x, 16)
    ours = to_nvfp4(x, scale.to(torch.float32))
    assert torch.equal(ours.scales.view(torch.uint8), block_scales.view(torch.uint8))
    assert torch.equal(pack(ours.codes), theirs._quantized_data)
    assert torch.isclose(nvfp4_scale(x.abs().amax()), scale.to(torch.float32))
