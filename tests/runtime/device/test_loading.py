"""Every residency gives the same picture within its budget."""

import pytest

from kontext_trt.engine.components import COMPONENTS
from kontext_trt.runtime.device.residency import Residency


@pytest.mark.parametrize(
    "residencies",
    [
        {"t5": Residency.TURN},
        {"clip": Residency.TURN, "t5": Residency.TURN, "vae_encoder": Residency.TURN},
        {"denoiser": Residency.TURN, "vae_decoder": Residency.TURN},
        {"denoiser": Residency.STREAMED},
        dict.fromkeys(COMPONENTS, Residency.TURN),
    ],
)
def test_every_residency_gives_the_same_picture(simulate, picture, residencies):
    image, everything, simulation = picture(128, 128), simulate(), simulate(residencies=residencies)
    expected = [everything.latents(image=image, steps=2, prompt=prompt) for prompt in "aab"]
    assert [simulation.latents(image=image, steps=2, prompt=prompt) for prompt in "aab"] == expected
    assert [simulation.latents(image=image, steps=2, prompt=prompt) for prompt in "aab"] == expected


def test_what_stays_is_recorded_beside_what_takes_turns(simulate, picture):
    turns = dict.fromkeys(("t5", "vae_encoder", "conditioner", "vae_decoder"), Residency.TURN)
    simulation, image = simulate(residencies=turns), picture(128, 128)
    for _ in range(3):
        simulation.latents(image=image)
    jobs = [job for shape in simulation.executor._workspaces for job in simulation.executor._graphs.of(shape)]
    assert [[stage.name for stage in job.stages] for job in jobs] == [["denoise"] * 3]
    launches = simulation.cuda.calls["launch"]
    simulation.latents(image=image)
    assert simulation.cuda.calls["launch"] == launches + 1


def simulate_tight(simulate, everything):
    """Room for all but T5, which comes in the conditioner's place."""
    others = sum(cost.weights for name, cost in everything.costs.items() if name != "t5")
    parts = dict.fromkeys(COMPONENTS, Residency.RESIDENT)
    parts |= {"t5": Residency.TURN, "conditioner": Residency.YIELDING}
    return simulate(budget=everything.fixed + others + everything.arena, residencies=parts)


def test_what_yields_is_recorded_until_another_takes_its_place(simulate, caplog):
    """As the whole model on a card of 32 GB: T5 in the conditioner's place, and the arena goes while it is there."""
    everything = simulate()
    simulation = simulate_tight(simulate, everything.residency)
    assert "conditioner" not in simulation.residency.beside("t5")
    assert [record.message for record in caplog.records] == [
        "t5 is not in GPU memory all the time, so not in a CUDA graph"
    ]
    simulation.kontext.load()  # else T5 would find room where nothing is yet
    for prompt in ("a", "b"):
        expected = everything.latents(prompt=prompt)
        for _ in range(3):
            launches, loaded = simulation.cuda.calls["launch"], len(simulation.library.opened)
            assert simulation.latents(prompt=prompt) == expected
        assert simulation.cuda.calls["launch"] == launches + 1, "all of a request with a remembered prompt"
        assert len(simulation.library.opened) == loaded, "and nothing moves"
    assert simulation.library.opened.count("t5") == 2
    assert simulation.library.opened.count("conditioner") == 3, "once by load"
    assert simulation.cuda.peak <= simulation.residency.peak == simulation.residency.budget


def test_a_turn_lasts_over_all_prompts_of_a_request(simulate):
    """CLIP, which stays, runs between T5 and T5: it has room beside it."""
    everything = simulate()
    simulation = simulate_tight(simulate, everything.residency)
    prompts = ["a", "b", "c"]
    assert simulation.latents(prompt=prompts, size=(32, 32)) == everything.latents(prompt=prompts, size=(32, 32))
    assert simulation.library.opened.count("t5") == 1
    assert simulation.cuda.peak <= simulation.residency.budget


def test_activations_that_have_grown_are_placed_before_anything_is_recorded(simulate, picture):
    """Networks that ran before the arena grew still point to the old one; the library must not be told in a capture."""
    simulation, image = simulate(), picture(128, 128)
    for _ in range(3):
        simulation.latents()
    simulation.executor._make_room(None)
    expected = [simulation.latents(image=image) for _ in range(3)]
    assert expected[0] == expected[1] == expected[2]
    arena = simulation.executor._arena.place
    graphs = [job for shape in simulation.executor._workspaces for job in simulation.executor._graphs.of(shape)]
    assert {name for job in graphs for name in job.components} == {"conditioner", "denoiser", "vae_decoder"}
    for (_, component), by_shapes in simulation.executor._loaded._bound.items():
        if any(component in job.components for job in graphs):
            assert all(bound._context.memory == arena for bound in by_shapes.values())


def test_what_streaming_takes_is_in_the_budget_too(simulate):
    """TensorRT adds it to the activations, depending on what stays on the device."""
    plain = simulate(residencies={"denoiser": Residency.STREAMED})
    weights = plain.residency.costs["denoiser"].weights
    expected = plain.latents()
    for scratch, room in ((10_000, weights // 2), (10_000, 10_000), (0, weights // 2)):
        simulation = simulate(residencies={"denoiser": Residency.STREAMED}, streaming_budget=room)
        simulation.library.scratch_bytes = scratch
        budgets: list[int] = []
        simulation.library.on_budget = budgets.append
        assert simulation.latents() == expected
        assert budgets[-1] == room - scratch
        assert budgets[-1] + scratch <= room


def test_budgets_are_kept(simulate):
    peak = simulate().residency.peak
    expected, classes = simulate().latents(steps=2), set()
    for share in (1.0, 0.9, 0.75, 0.6, 0.5):
        simulation = simulate(budget=int(share * peak), workspaces=1)
        classes.add(tuple(simulation.residency.residencies.values()))
        for _ in range(3):
            assert simulation.latents(steps=2) == expected
        assert simulation.cuda.peak <= share * peak
    assert len(classes) == 5


def test_loaded_for_its_turn_means_one_at_a_time(simulate):
    everything = simulate()
    budget = everything.residency.peak - everything.residency.costs["denoiser"].weights // 2
    simulation = simulate(budget=budget)
    turns = [name for name in COMPONENTS if simulation.residency.of(name) is Residency.TURN]
    assert turns
    seen: list[set[str]] = []
    ready = simulation.executor._loaded.ready

    def watched(component: str):
        engine = ready(component)
        seen.append({name for name in simulation.library.loaded if name in turns})
        return engine

    simulation.executor._loaded.ready = watched
    first = simulation.latents()
    assert simulation.latents(prompt="another") != first
    assert max(map(len, seen)) == 1
    assert simulation.cuda.allocated <= budget


def test_streamed_weights_get_their_budget_and_are_not_recorded(simulate, caplog):
    simulation = simulate(residencies={"denoiser": Residency.STREAMED})
    assert [record.message for record in caplog.records] == [
        "denoiser is not in GPU memory all the time, so not in a CUDA graph"
    ]
    budgets = []
    simulation.library.on_budget = budgets.append
    assert simulation.latents() == simulation.latents() == simulation.latents()
    assert budgets == [simulation.residency.streaming_budget]
    parts = [job for shape in simulation.executor._workspaces for job in simulation.executor._graphs.of(shape)]
    assert sorted([stage.name for stage in job.stages] for job in parts) == [["condition"], ["decode"]]
