"""The whole model's costs from smaller ones, and what a budget makes of them. The counts are made up."""

from __future__ import annotations

import pytest

from kontext_trt.benchmarks.costs.budget_table import COMPILED, WHOLE, Counted, Depth, row, whole_costs
from kontext_trt.engine.components import COMPONENTS

MIB = 1 << 20
SIZES = {
    "clip": (240, 0, 0, 0),
    "t5": (250, 0, 0, 370),
    "vae_encoder": (70, 0, 0, 0),
    "conditioner": (60, 216, 54, 0),
    "denoiser": (20, 450, 207, 0),
    "vae_decoder": (100, 0, 0, 0),
}
ACTIVATIONS = {"clip": 9, "t5": 74, "vae_encoder": 6950, "conditioner": 123, "denoiser": 890, "vae_decoder": 6875}


def counted(depth: Depth) -> dict[tuple[str, str], Counted]:
    """As a compiler would count: sizes are linear; FP8 halves the denoiser's, and leaves the rest to bf16."""
    found: dict[tuple[str, str], Counted] = {}
    for name, factors in SIZES.items():
        size = MIB * sum(factor * term for factor, term in zip(factors, depth.terms, strict=True))
        found["bf16", name] = Counted(size, MIB * ACTIVATIONS[name])
        if name == "denoiser":
            found["fp8", name] = Counted(size // 2, MIB * ACTIVATIONS[name])
    return found


@pytest.fixture
def compiled() -> dict[Depth, dict[tuple[str, str], Counted]]:
    return {depth: counted(depth) for depth in COMPILED}


def test_the_whole_is_drawn_from_few_blocks(compiled) -> None:
    costs = whole_costs(compiled, "bf16", steps=28)
    for name, cost in costs.items():
        assert cost.weights == pytest.approx(counted(WHOLE)["bf16", name].plan, rel=1e-9)
        assert cost.activations == MIB * ACTIVATIONS[name]
        assert cost.per_prompt is (name in ("clip", "t5"))
    assert costs["denoiser"].runs == 28
    narrow = whole_costs(compiled, "fp8", steps=28)
    assert narrow["denoiser"].weights == pytest.approx(costs["denoiser"].weights / 2, rel=1e-9)
    assert {name: narrow[name] for name in COMPONENTS if name != "denoiser"} == {
        name: costs[name] for name in COMPONENTS if name != "denoiser"
    }


def test_a_row_says_what_moves_and_what_is_refused(compiled) -> None:
    costs, fixed = whole_costs(compiled, "bf16", steps=28), 400 * MIB
    assert row("bf16", "8GiB", costs, fixed).startswith("| 8GiB | bf16 | refused: it needs at least 17.")
    assert "| everything stays | 0 B | 0 B | one launch |" in row("bf16", "80GiB", costs, fixed)
    tight = row("bf16", "31GiB", costs, fixed)
    assert "t5 comes in the place of conditioner" in tight
    assert tight.endswith("| 0 B | one launch |")
    assert row("bf16", "18GiB", costs, fixed).endswith("denoiser by calls |")
