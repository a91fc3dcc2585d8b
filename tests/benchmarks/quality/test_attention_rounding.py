"""Ways of rounding attention to FP8, beside what is not rounded."""

from __future__ import annotations

import pytest
import torch

from kontext_trt.benchmarks.quality.attention_rounding import WAYS, Rounding, rows
from kontext_trt.export.networks.layers import Attend


@pytest.fixture
def operands() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys that have much in common, and values."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 192, 32) for _ in range(3))
    common = torch.zeros(32)
    common[5] = 30.0
    return q * 32**-0.5, k + common, v


def error(way: Rounding, operands: tuple[torch.Tensor, ...]) -> float:
    exact = Attend()(*operands)
    return float((way.attend(*operands) - exact).norm() / exact.norm())


def test_nothing_rounded_is_plain_attention(operands: tuple[torch.Tensor, ...]) -> None:
    assert error(Rounding(operands=""), operands) < 1e-6
    assert error(Rounding(operands="", smoothed=True, hadamard=True), operands) < 1e-4


def test_keys_that_have_much_in_common_lose_most_and_both_ways_help(operands: tuple[torch.Tensor, ...]) -> None:
    errors = {name: error(way, operands) for name, way in WAYS.items()}
    assert errors["keys"] > 2 * max(errors[name] for name in ("queries", "values", "probabilities"))
    assert errors["all, both"] < errors["all, keys smoothed"] * 1.05
    assert errors["all, both"] < errors["all"] / 2


def test_rows_are_a_median_and_the_worst() -> None:
    assert rows({"keys": [10.0, 30.0, 20.04]}) == [{"rounded": "keys", "median_db": 20.0, "worst_db": 10.0}]
