"""The plan of what stays on the GPU: pure arithmetic."""

from dataclasses import replace

import pytest

from kontext_trt import BudgetError
from kontext_trt.runtime.device.residency import Cost, Residency, least_budget, plan_residency

GIB = 1 << 30
FLUX = {
    "clip": Cost(weights=GIB // 4, activations=GIB // 64, per_prompt=True),
    "t5": Cost(weights=9 * GIB, activations=GIB // 8, per_prompt=True),
    "vae_encoder": Cost(weights=GIB // 14, activations=3 * GIB),
    "conditioner": Cost(weights=6 * GIB, activations=GIB // 16),
    "denoiser": Cost(weights=16 * GIB, activations=GIB),
    "vae_decoder": Cost(weights=GIB // 10, activations=7 * GIB),
}
STREAMABLE = FLUX | {"denoiser": replace(FLUX["denoiser"], streamable=16 * GIB, runs=28)}
FIXED = GIB // 2
BUDGETS = [38.5, 36, 33, 31, 28, 27, 24, 20, 17.5]


def plan(budget: float, costs=FLUX):
    return plan_residency(costs, fixed=FIXED, budget=int(budget * GIB))


def named(made, residency: Residency) -> set[str]:
    return {name for name, found in made.residencies.items() if found is residency}


def test_everything_stays_where_there_is_room():
    made = plan(80)
    assert set(made.residencies.values()) == {Residency.RESIDENT}
    assert made.moved == made.moved_again == 0
    assert made.peak == sum(cost.weights for cost in FLUX.values()) + 7 * GIB + FIXED


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("costs", [FLUX, STREAMABLE], ids=["whole", "streamable"])
def test_at_no_time_does_a_plan_exceed_its_budget(budget: float, costs):
    made = plan(budget, costs)
    assert made.moved > 0
    assert made.peak <= budget * GIB
    for name, cost in costs.items():
        loaded = made.beside(name)
        assert name in loaded
        streamed = [one for one in loaded if made.of(one) is Residency.STREAMED]
        kept = sum(made.streaming_budget - costs[one].streamable for one in streamed)
        assert FIXED + sum(costs[one].weights for one in loaded) + kept + cost.activations <= budget * GIB


def test_less_memory_never_moves_fewer_bytes():
    moved = [plan(budget).moved + plan(budget).moved_again for budget in BUDGETS]
    assert moved == sorted(moved)


def test_activations_need_no_room_beside_what_is_loaded_at_another_time():
    """T5 and the decoder's 7 GiB never meet: T5 alone takes turns, where beside everything 38.9 GiB would be needed."""
    made = plan(33)
    assert named(made, Residency.TURN) == {"t5"}
    assert named(made, Residency.YIELDING) == set()
    assert made.moved == 9 * GIB
    assert made.moved_again == 0


def test_on_a_card_of_32_gb_t5_comes_in_the_conditioners_place():
    made = plan(31)
    assert named(made, Residency.TURN) == {"t5"}
    assert named(made, Residency.YIELDING) == {"conditioner"}
    assert made.beside("t5") == {"clip", "t5", "vae_encoder", "denoiser", "vae_decoder"}
    assert made.beside("denoiser") == set(FLUX) - {"t5"}, "so a request with a remembered prompt is one launch"
    assert made.moved == 15 * GIB
    assert made.moved_again == 0
    assert made.room("t5") < 7 * GIB <= made.room("vae_decoder"), "the arena goes while T5 is there"


def test_the_least_is_what_the_hungriest_takes_alone():
    assert least_budget(FLUX, fixed=FIXED) == FIXED + 17 * GIB
    narrow = FLUX | {"denoiser": Cost(weights=5 * GIB, activations=GIB), "t5": Cost(weights=5 * GIB, activations=GIB)}
    assert least_budget(narrow, fixed=FIXED) == FIXED + 7 * GIB + GIB // 10, "the decoder's, by its activations"


def test_streaming_takes_what_is_left():
    assert plan(17, STREAMABLE).residencies["denoiser"] is Residency.STREAMED
    streamed = plan_residency({"denoiser": STREAMABLE["denoiser"]}, fixed=FIXED, budget=9 * GIB)
    assert streamed.residencies["denoiser"] is Residency.STREAMED
    assert streamed.streaming_budget == 9 * GIB - FIXED - GIB
    assert streamed.peak == 9 * GIB
    assert streamed.moved == (16 * GIB - streamed.streaming_budget) * 28


def test_too_little_is_refused_with_what_works():
    with pytest.raises(
        BudgetError, match=r"2\.0 GiB of GPU memory are too little.*at least 17\.5 GiB \((\d|,)+ bytes\)"
    ) as caught:
        plan(2)
    assert "loaded for its turn" in str(caught.value)
    least = int(str(caught.value).split("(")[1].split(" bytes")[0].replace(",", ""))
    assert plan_residency(FLUX, fixed=FIXED, budget=least).peak == least
    with pytest.raises(BudgetError):
        plan_residency(FLUX, fixed=FIXED, budget=least - 1)


def test_a_plan_is_said_in_words():
    lines = plan(31).describe()
    assert [line.split(maxsplit=3)[3] for line in lines[:-1]] == [
        "resident",
        "turn",
        "resident",
        "resident, but in the turn of t5",
        "resident",
        "resident",
    ]
    assert lines[-1].endswith("at a time, 15.0 GiB loaded per request, 0 B with a prompt that is remembered")
    assert plan(80).describe()[-1].endswith("at a time")
