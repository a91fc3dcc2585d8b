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
