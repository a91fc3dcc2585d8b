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
    hadamard,
    nvfp4_scale,
    round_up,
    smoothed,
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


@pytest.mark.parametrize("width", [16, 64, 128, 256])
def test_hadamards_matrix_keeps_products_and_spreads_one_channel_over_all(width: int) -> None:
    q, k = torch.randn(2, 3, 5, width, dtype=torch.float32), torch.randn(2, 3, 7, width, dtype=torch.float32)
    products = q @ k.transpose(-2, -1)
    torch.testing.assert_close(hadamard(q) @ hadamard(k).transpose(-2, -1), products, rtol=0, atol=1e-4)
    torch.testing.assert_close(hadamard(hadamard(q)), q, rtol=0, atol=1e-5)
    one = torch.zeros(width)
    one[width // 3] = 1
    assert torch.allclose(hadamard(one).abs(), torch.tensor(width**-0.5))


def test_hadamards_matrix_is_sylvesters() -> None:
    matrix = torch.ones(1, 1)
    while len(matrix) < 32:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), matrix)
    torch.testing.assert_close(hadamard(torch.eye(32)) * 32**0.5, matrix)


@pytest.mark.parametrize(("tokens", "sampled"), [(5, 5), (127, 127), (128, 64), (8704, 64)])
def test_smoothed_keys_lack_a_mean_that_softmax_does_not_see(tokens: int, sampled: int) -> None:
    keys, queries = torch.randn(2, tokens, 16) + 3, torch.randn(2, 4, 16)
    found = smoothed(keys)
    off = keys - found
    assert torch.allclose(off, off[:, :1], atol=1e-5), "the same of every token"
    torch.testing.assert_close(off[:, 0], keys[:, :: max(tokens // 64, 1)][:, :sampled].mean(1), rtol=0, atol=1e-5)
    plain, less = ((queries @ each.transpose(-2, -1)).softmax(-1) for each in (keys, found))
    torch.testing.assert_close(less, plain, rtol=1e-3, atol=1e-6)


def test_both_make_fp8_keys_better_that_have_much_in_common() -> None:
    torch.manual_seed(0)
    common = torch.zeros(128)
    common[[3, 50]] = torch.tensor([40.0, -25.0])
    keys, queries = torch.randn(512, 128) + common, torch.randn(64, 128)
    exact = queries @ keys.T

    def error(turned: torch.Tensor, asked: torch.Tensor) -> float:
        scores = asked @ fake_fp8(turned, turned.abs().max() / 448).T
        wrong = scores - exact
        return float((wrong - wrong.mean(1, keepdim=True)).std())  # what all keys share does not count

    plain, fused = error(keys, queries), error(hadamard(smoothed(keys)), hadamard(queries))
    assert fused < plain / 3, (plain, fused)
