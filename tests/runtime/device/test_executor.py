"""The device executor gives the CPU's picture: enqueued or recorded, whole or in parts, at every residency."""

import logging
import threading

import numpy as np
import pytest

from kontext_trt import Cancelled, ExecutorError, Kontext, NotFiniteError, RequestError
from kontext_trt.engine.components import COMPONENTS
from kontext_trt.runtime.device import workspace
from kontext_trt.runtime.residency import Residency


@pytest.fixture
def reference_latents(kontext: Kontext, picture):
    """What ONNX Runtime makes of a request on the CPU."""

    def make(**request):
        request = {"prompt": "x", "seed": 1, "steps": 3, "size": (48, 80)} | request
        image = request.pop("image", None)
        result = kontext.generate(**request) if image is None else kontext.edit(image, **request)
        return np.stack([output.latents for output in result.outputs])

    return make


@pytest.mark.parametrize(
    "request_of",
    [
        {},
        {"image": (96, 192)},
        {"image": (128, 128), "seed": [1, 2]},
        {"prompt": ["x", "make it blue"], "seed": [3, 4], "steps": 2},
        {"steps": 1, "image": (192, 96), "size": None},
    ],
)
def test_same_as_on_the_cpu(simulate, reference_latents, picture, request_of: dict):
    request = dict(request_of)
    if "image" in request:
        request["image"] = picture(*request["image"])
    simulation, expected = simulate(), reference_latents(**request)
    for _ in range(3):  # enqueued, recorded, replayed
        np.testing.assert_allclose(np.array(simulation.latents(**request)), expected, atol=1e-5)
    assert simulation.graphs == 1


def test_recorded_equals_enqueued_bit_for_bit(simulate, picture):
    plain, recorded, image = simulate(graphs=False), simulate(), picture(128, 128)
    for seed in range(4):
        request = {"image": image, "seed": seed, "steps": 4}
        first = plain.latents(**request)
        assert first == recorded.latents(**request)
        np.testing.assert_array_equal(
            plain.kontext.edit(image, "x", seed=seed, steps=4, size=(48, 80)).image,
            recorded.kontext.edit(image, "x", seed=seed, steps=4, size=(48, 80)).image,
        )
    assert plain.graphs == 0
    assert recorded.graphs == 1
    assert recorded.cuda.calls["launch"] > 0


def test_one_launch_and_one_wait_a_request(simulate, picture):
    simulation, image = simulate(), picture(128, 128)
    for _ in range(3):
        simulation.latents(image=image, steps=20)
    before = simulation.cuda.calls.copy()
    simulation.latents(image=image, steps=20)
    made = simulation.cuda.calls - before
    assert made == {"launch": 1, "synchronize": 1, "use": 1}
    assert simulation.library.executions[-22:] == ["conditioner", *["denoiser"] * 20, "vae_decoder"]


def test_encoders_are_part_of_the_graph_when_they_run(simulate, picture):
    simulation = simulate()
    for seed in range(3):
        simulation.latents(image=picture(128, 128, seed=seed), prompt=f"make it {seed}")
    before = simulation.cuda.calls.copy()
    simulation.latents(image=picture(128, 128, seed=9), prompt="make it 9")
    assert (simulation.cuda.calls - before)["launch"] == 1
    assert (simulation.cuda.calls - before)["synchronize"] == 1
    assert simulation.library.executions[-8:-5] == ["clip", "t5", "vae_encoder"]


def test_a_step_is_a_graph_for_progress_and_cancel(simulate):
    simulation, whole, told = simulate(), simulate().latents(steps=5), []
    for _ in range(3):
        assert simulation.latents(steps=5, on_step=lambda done, of: told.append(done)) == whole
    assert told == [1, 2, 3, 4, 5] * 3
    before = simulation.cuda.calls.copy()
    simulation.latents(steps=5, cancel=threading.Event())
    assert (simulation.cuda.calls - before)["launch"] == 7  # conditions, five steps, decoding
    assert (simulation.cuda.calls - before)["copy"] == 0  # they are in the graphs


def test_graph_used_longest_ago_goes_first(simulate, monkeypatch):
    monkeypatch.setattr(workspace, "GRAPHS_KEPT", 6)
    monkeypatch.setattr(workspace, "OTHER_GRAPHS", 2, raising=False)
    simulation = simulate()
    whole = [simulation.latents(), simulation.latents()][1]  # enqueued, then recorded before all others
    simulation.latents(cancel=threading.Event())  # conditions, three steps, decoding: six are kept
    simulation.latents()
    simulation.latents(prompt="another")  # takes a place
    before = simulation.cuda.calls.copy()
    assert simulation.latents() == whole
    made = simulation.cuda.calls - before
    assert made == {"launch": 1, "synchronize": 1, "use": 1}
    assert simulation.graphs == 6


def test_steps_of_a_request_that_has_too_many_are_enqueued(simulate, monkeypatch):
    monkeypatch.setattr(workspace, "GRAPHS_KEPT", 6)
    monkeypatch.setattr(workspace, "OTHER_GRAPHS", 2, raising=False)
    simulation, watched = simulate(), {"steps": 8, "on_step": lambda done, of: None}
    whole = simulation.latents(steps=8)
    for _ in range(2):
        assert simulation.latents(**watched) == whole
    assert simulation.graphs == 2  # conditions, decoding
    before = simulation.cuda.calls.copy()
    assert simulation.latents(**watched) == whole
    assert (simulation.cuda.calls - before)["instantiate"] == 0
    assert simulation.latents(steps=8) == whole
    assert simulation.graphs == 3  # as a whole it is one graph


def test_cancelled_after_each_step_and_usable_again(simulate):
    simulation, steps = simulate(), 6
    whole = simulation.latents(steps=steps)
    for last in range(1, steps):
        cancel = threading.Event()
        with pytest.raises(Cancelled, match=f"after step {last} of {steps}"):
            simulation.latents(
                steps=steps,
                cancel=cancel,
                on_step=lambda done, of, last=last, cancel=cancel: done == last and cancel.set(),
            )
        assert simulation.latents(steps=steps) == whole


def test_two_hundred_requests_of_mixed_sizes_take_no_more_memory(simulate, picture):
    simulation, dice = simulate(), np.random.default_rng(0)
    shapes = [((48, 80), None), ((32, 32), None), ((128, 128), (128, 128)), ((32, 32), (96, 192))]

    def serve(index: int) -> None:
        size, reference = shapes[index]
        image = None if reference is None else picture(*reference)
        simulation.latents(size=size, image=image, steps=2, seed=int(dice.integers(100)))

    for index in range(len(shapes)):
        serve(index)
        serve(index)
    seen = set()
    for _ in range(200):
        serve(int(dice.integers(len(shapes))))
        seen.add((simulation.cuda.allocated, simulation.cuda.open_handles))
    assert len(seen) == 1


def test_buffers_of_the_shape_used_longest_ago_go_first(simulate):
    simulation = simulate(workspaces=2)
    for size in ((32, 32), (48, 80), (32, 32), (128, 128)):
        simulation.latents(size=size)
    assert [shape.grid for shape in simulation.executor._workspaces] == [(2, 2), (8, 8)]


def test_a_graph_is_gone_before_its_buffers(simulate):
    simulation = simulate(workspaces=1)
    simulation.latents()
    simulation.latents()
    (workspace,) = simulation.executor._workspaces.values()
    (graph,) = workspace._graphs.values()
    simulation.latents(size=(32, 32))  # takes the other's place
    assert workspace.num_graphs == 0
    launches = simulation.cuda.calls["launch"]
    with pytest.raises(ExecutorError, match="closed with the buffers that it was recorded on"):
        graph.launch(simulation.executor._stream)
    assert simulation.cuda.calls["launch"] == launches


def test_arena_that_grows_takes_the_graphs_of_the_old_one_along(simulate):
    simulation = simulate()
    small = simulation.latents(prompt="x", seed=1)
    assert simulation.latents(prompt="x", seed=1) == small
    assert simulation.graphs == 1
    arena = simulation.executor._arena.size_bytes
    simulation.executor.run("denoiser", _denoiser_inputs(simulation.bundle, batch=4))
    assert simulation.executor._arena.size_bytes > arena
    assert simulation.graphs == 0
    for _ in range(3):
        assert simulation.latents(prompt="x", seed=1) == small
    assert simulation.graphs == 1


def _denoiser_inputs(bundle, batch: int) -> dict[str, np.ndarray]:
    dims, draw = bundle.manifest.model.dims, np.random.default_rng(0)
    sizes = {"b": batch, "n": 16, "m": 16, "s": dims.text_length + 32}
    return {
        port.name: draw.standard_normal(dims.resolve(port.dims, **sizes)).astype(np.float32)
        for port in COMPONENTS["denoiser"].inputs
    }


@pytest.mark.parametrize(
    ("component", "sizes"),
    [
        ("clip", {"b": 1}),
        ("vae_encoder", {"b": 1, "h": 8, "w": 8}),
        ("denoiser", {"b": 2, "n": 16, "m": 0, "s": 528}),
        ("vae_decoder", {"b": 1, "h": 6, "w": 12}),
    ],
)
def test_one_component_alone(simulate, kontext: Kontext, component: str, sizes: dict[str, int]):
    simulation, draw = simulate(), np.random.default_rng(0)
    inputs = {}
    for port in COMPONENTS[component].inputs:
        shape = simulation.bundle.manifest.model.dims.resolve(port.dims, **sizes)
        whole = port.element_type.value in ("int32", "uint8")
        values = draw.integers(0, 90, shape) if whole else draw.standard_normal(shape)
        inputs[port.name] = values.astype("float32" if not whole else port.element_type.value)
    ours, theirs = simulation.executor.run(component, inputs), kontext.executor.run(component, inputs)
    for name, array in theirs.items():
        np.testing.assert_allclose(ours[name], array, atol=1e-5)


def test_request_outside_the_plans_says_how_to_build(simulate):
    simulation = simulate()
    with pytest.raises(RequestError, match=r"no profile for 256x256: these plans cover .*build with --size 256x256"):
        simulation.latents(size=(256, 256))
    assert not simulation.library.loaded


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
    jobs = [job for w in simulation.executor._workspaces.values() for job in w._graphs]
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
    ready = simulation.executor._components.ready

    def watched(component: str):
        engine = ready(component)
        seen.append({name for name in simulation.library.loaded if name in turns})
        return engine

    simulation.executor._components.ready = watched
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
    parts = [graph for w in simulation.executor._workspaces.values() for graph in w._graphs]
    assert sorted([stage.name for stage in job.stages] for job in parts) == [["condition"], ["decode"]]


def test_kernels_that_are_not_finished_are_waited_for(simulate):
    simulation, unfinished = simulate(), [True]
    simulation.library.faults["unfinished"] = lambda component: unfinished[0]
    whole = simulation.latents()
    assert simulation.latents() == whole
    assert simulation.graphs == 0
    unfinished[0] = False
    assert simulation.latents() == whole
    assert simulation.graphs == 1


def test_capture_that_fails_is_said_once_and_done_without(simulate, caplog):
    simulation = simulate()
    simulation.library.faults["capture"] = lambda component: component == "denoiser"
    with caplog.at_level(logging.WARNING):
        whole = simulation.latents()
        for _ in range(3):
            assert simulation.latents() == whole
    assert simulation.graphs == 0
    assert len([record for record in caplog.records if "cannot be recorded" in record.message]) == 1


def test_stage_that_cannot_be_recorded_stays_out_of_graphs(simulate, caplog):
    simulation = simulate()
    (stream,) = simulation.cuda.streams
    simulation.library.faults["enqueue"] = lambda component: component == "clip" and stream.capture is not None
    first = simulation.latents(prompt="x")
    for prompt in "yzx":
        simulation.kontext.forget()
        simulation.latents(prompt=prompt)
    assert simulation.latents(prompt="x") == first
    jobs = [job for w in simulation.executor._workspaces.values() for job in w._graphs]
    assert next([stage.name for stage in job.stages] for job in jobs) == ["condition", *["denoise"] * 3, "decode"]
    assert [record.message.split(" cannot")[0] for record in caplog.records] == ["text"]


def test_nan_is_found_whatever_runs_it(simulate, picture):
    simulation = simulate()
    compute = simulation.library.compute

    def poisoned(component, inputs, outputs):
        compute(component, inputs, outputs)
        if component == "vae_decoder":
            outputs["mean"][:] = np.nan

    simulation.latents()
    simulation.latents()
    simulation.library.compute = poisoned
    with pytest.raises(NotFiniteError, match="vae_decoder, mean of the picture"):
        simulation.latents()
    simulation.library.compute = compute
    simulation.latents()


def test_closed_executor_refuses(simulate):
    simulation = simulate()
    simulation.executor.close()
    simulation.executor.close()
    with pytest.raises(ExecutorError, match="closed"):
        simulation.latents()
