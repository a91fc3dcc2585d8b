"""The device executor gives the CPU's picture: enqueued or recorded, whole or in parts."""

import threading

import numpy as np
import pytest

from kontext_trt import Cancelled, ExecutorError, Kontext, NotFiniteError, RequestError
from kontext_trt.engine.components import COMPONENTS
from kontext_trt.runtime.executors.tensorrt import TensorRtEngines


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


def test_a_hundred_requests_of_mixed_sizes_take_no_more_memory(simulate, picture):
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
    for _ in range(100):
        serve(int(dice.integers(len(shapes))))
        seen.add((simulation.cuda.allocated, simulation.cuda.open_handles))
    assert len(seen) == 1


def test_buffers_of_the_shape_used_longest_ago_go_first(simulate):
    simulation = simulate(workspaces=2)
    for size in ((32, 32), (48, 80), (32, 32), (128, 128)):
        simulation.latents(size=size)
    assert [shape.grid for shape in simulation.executor._workspaces] == [(2, 2), (8, 8)]


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


def test_nothing_runs_while_another_of_the_process_has_the_turn(simulate):
    simulation = simulate()
    simulation.engines.turn = lock = threading.Lock()
    whole, found = simulation.latents(), []
    asking = threading.Thread(target=lambda: found.append(simulation.latents()))
    with lock:
        before = simulation.cuda.calls.copy()
        asking.start()
        asking.join(0.2)
        assert simulation.cuda.calls == before
    asking.join(20)
    assert found == [whole]
    simulation.executor.free_bytes()
    assert not lock.locked()


def test_engines_can_drop_its_graphs_before_they_give_memory_back(simulate, monkeypatch: pytest.MonkeyPatch):
    given: list = []
    monkeypatch.setattr(TensorRtEngines, "before_shrinking", lambda self, forget: given.append(forget))
    simulation = simulate()
    whole = [simulation.latents() for _ in range(3)][-1]
    assert simulation.graphs == 1
    (forget,) = given
    forget()
    assert simulation.graphs == 0
    assert [simulation.latents() for _ in range(3)] == [whole] * 3
    assert simulation.graphs == 1
