"""Products of 16-bit operands on a CPU are added in float32 and rounded once."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kontext_trt.export.emulate.wide_products import WideProducts


def draw(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_product_is_the_exact_one_rounded_once(dtype):
    x, weight, bias = draw(3, 64, dtype=dtype), draw(5, 64, dtype=dtype), draw(5, dtype=dtype)
    exact = (x.double() @ weight.double().T + bias.double()).to(dtype)
    with WideProducts():
        made = F.linear(x, weight, bias=bias)
    assert made.dtype == dtype
    assert torch.equal(made, exact)


def test_convolutions_in_modules_are_wide_too():
    layer = nn.Conv2d(8, 4, 3, padding=1).to(torch.bfloat16)
    x = draw(1, 8, 6, 6)
    with torch.no_grad(), WideProducts():
        made = layer(x)
        widened = F.conv2d(x.float(), layer.weight.float(), layer.bias.float(), padding=1)
    assert torch.equal(made, widened.to(torch.bfloat16))


def test_attention_masks_are_widened_and_stay_masks():
    q, k, v = draw(1, 2, 5, 8), draw(1, 2, 7, 8), draw(1, 2, 7, 8)
    hidden = torch.ones(5, 7, dtype=torch.bool)
    hidden[:, 3:] = False
    with WideProducts():
        made = F.scaled_dot_product_attention(q, k, v, attn_mask=hidden)
        short = F.scaled_dot_product_attention(q, k[:, :, :3], v[:, :, :3])
    assert made.dtype == torch.bfloat16
    assert (made.float() - short.float()).abs().max() <= 2**-8 * short.float().abs().max()


def test_float32_is_left_as_it_is():
    x, weight = draw(3, 64, dtype=torch.float32), draw(5, 64, dtype=torch.float32)
    with WideProducts():
        made = x @ weight.T
    assert torch.equal(made, x @ weight.T)
