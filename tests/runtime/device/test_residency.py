"""The plan of what stays on the GPU: pure arithmetic."""

import pytest

from kontext_trt import BudgetError
from kontext_trt.runtime.device.residency import Cost, Residency, plan_residency

GIB = 1 << 30
FLUX = {
    "clip": Cost(weights=GIB // 4, activations=GIB // 64),
    "t5": Cost(weights=9 * GIB, activations=GIB // 8),
    "vae_encoder": Cost(weights=GIB // 14, activations=3 * GIB),
    "conditioner": Cost(weights=6 * GIB, activations=GIB // 16),
    "denoiser": Cost(weights=16 * GIB, activations=GIB, streamable=16 * GIB, runs=28),
    "vae_decoder": Cost(weights=GIB // 10, activations=7 * GIB),
}  # fmt: skip
FIXED = GIB // 2


def plan(budget: float, costs=FLUX):
    return plan_residency(costs, fixed=FIXED, budget=int(budget * GIB))


def turns(made) -> set[str]:
    return {name for name, residency in made.residencies.items() if residency is Residency.TURN}


def test_everything_stays_where_there_is_room():
    made = plan(80)
    assert set(made.residencies.values()) == {Residency.RESIDENT}
    assert made.moved == 0
    assert made.peak == sum(cost.weights for cost in FLUX.values()) + 7 * GIB + FIXED


@pytest.mark.parametrize("budget", [38.5, 36, 33, 31, 27, 24, 20, 17])
def test_a_plan_keeps_its_budget(budget: float):
    made = plan(budget)
    assert made.peak <= budget * GIB
    assert made.moved > 0


def test_what_moves_fewer_bytes_is_preferred():
    """One network in turns saves nothing: two must take turns, and the denoiser, the largest, stays if it can."""
    assert turns(plan(33)) == {"t5", "conditioner"}
    assert plan(33).moved == 15 * GIB
    assert turns(plan(32.8)) >= {"t5", "conditioner"}
    assert [plan(budget).moved for budget in (38, 33, 31, 27)] == sorted(
        plan(budget).moved for budget in (38, 33, 31, 27)
    )
    assert turns(plan(27)) == {"t5", "conditioner", "denoiser"}


def test_streaming_takes_what_is_left():
    assert plan(17).residencies["denoiser"] is Residency.STREAMED
    streamed = plan_residency({"denoiser": FLUX["denoiser"]}, fixed=FIXED, budget=9 * GIB)
    assert streamed.residencies["denoiser"] is Residency.STREAMED
    assert streamed.streaming_budget == 9 * GIB - FIXED - GIB
    assert streamed.peak == 9 * GIB
    assert streamed.moved == (16 * GIB - streamed.streaming_budget) * 28


def test_too_little_is_refused_with_what_works():
    with pytest.raises(
        BudgetError, match=r"2\.0 GiB of GPU memory are too little.*at least 23\.5 GiB \((\d|,)+ bytes\)"
    ) as caught:
        plan(
            2,
            {name: cost for name, cost in FLUX.items() if name != "denoiser"}
            | {"denoiser": Cost(weights=16 * GIB, activations=GIB)},
        )
    assert "loaded for its turn" in str(caught.value)


def test_the_least_that_is_named_does_work():
    costs = FLUX | {"denoiser": Cost(weights=16 * GIB, activations=GIB)}
    with pytest.raises(BudgetError) as caught:
        plan(2, costs)
    least = int(str(caught.value).split("(")[1].split(" bytes")[0].replace(",", ""))
    assert plan_residency(costs, fixed=FIXED, budget=least).peak == least
    with pytest.raises(BudgetError):
        plan_residency(costs, fixed=FIXED, budget=least - 1)


def test_a_plan_is_said_in_words():
    lines = plan(33).describe()
    assert len(lines) == 7
    assert any("turn" in line for line in lines)
    assert "at a time" in lines[-1]
    assert "loaded per request" in lines[-1]
