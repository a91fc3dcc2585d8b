"""Fifty things that go wrong, each seen to happen: a typed error, or the right picture all the same; and the next
request gives the right picture."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest
from simulated_tensorrt import Context, ILogger
from simulation import Simulation

from kontext_trt import Bundle, Cancelled, ExecutorError, GpuMemoryError, KontextError, PlanError
from kontext_trt.engine.components import COMPONENTS
from kontext_trt.runtime.device.residency import Residency

STEPS = 6


def once(component: str) -> Callable[[str], bool]:
    """True for the first time that a component is asked for."""
    left = [component]

    def fault(asked: str) -> bool:
        if asked in left:
            left.remove(asked)
            return True
        return False

    return fault


def serve(simulation: Simulation, picture, **request) -> list:
    return simulation.latents(image=picture(128, 128), steps=STEPS, **request)


@pytest.fixture
def expected(simulate, picture):
    return serve(simulate(), picture)


@pytest.mark.parametrize(("after", "warm"), [(after, 0) for after in range(8)] + [(0, 2)])
def test_allocation_that_fails(simulate, picture, expected, after: int, warm: int):
    """One that fails alone is tried again, if something else can be let go; else it is an error."""
    simulation = simulate()
    for _ in range(warm):
        serve(simulation, picture)
    simulation.cuda.fail("malloc", after)
    with suppress(GpuMemoryError):
        simulation.latents(size=(32, 32), steps=2)
        serve(simulation, picture)
    assert simulation.cuda.calls["failed"] == 1
    assert serve(simulation, picture) == expected


@pytest.mark.parametrize(
    ("call", "after"),
    [("malloc_host", 0), ("copy", 0), ("copy", 9), ("event", 3), ("record", 5), ("synchronize", 0), ("synchronize", 2)],
)
def test_call_that_fails(simulate, picture, expected, call: str, after: int):
    simulation = simulate()
    simulation.cuda.fail(call, after, "cudaErrorUnknown")
    with pytest.raises(ExecutorError, match=r"simulated \(cudaErrorUnknown\)"):
        for _ in range(4):
            serve(simulation, picture)
    assert serve(simulation, picture) == expected


@pytest.mark.parametrize("component", list(COMPONENTS))
def test_enqueue_that_returns_false(simulate, picture, expected, component: str):
    simulation = simulate()
    simulation.library.faults["enqueue"] = once(component)
    with pytest.raises(ExecutorError, match=f"{component}: TensorRT did not start it: simulated refusal"):
        serve(simulation, picture)
    assert serve(simulation, picture) == expected


@pytest.mark.parametrize("component", list(COMPONENTS))
def test_weights_that_find_no_memory(simulate, picture, expected, component: str):
    simulation = simulate()
    simulation.library.faults["deserialize"] = lambda asked: asked == component
    message = f"{component}: .* could not open its plan .*out of memory.*With a smaller budget"
    with pytest.raises(GpuMemoryError, match=message):
        serve(simulation, picture)
    simulation.library.faults.clear()
    assert serve(simulation, picture) == expected


def test_streaming_budget_that_is_not_accepted(simulate, picture, expected):
    simulation = simulate(residencies={"denoiser": Residency.STREAMED})
    simulation.library.faults["streaming budget"] = once("denoiser")
    with pytest.raises(ExecutorError, match=r"denoiser: TensorRT did not accept [0-9,]+ bytes for streamed weights"):
        serve(simulation, picture)
    assert serve(simulation, picture) == expected


@pytest.mark.parametrize("component", list(COMPONENTS))
def test_context_that_is_not_made(simulate, picture, expected, component: str):
    simulation = simulate()
    simulation.library.faults["context"] = once(component)
    with pytest.raises(ExecutorError, match=f"{component}: TensorRT made no execution context: it did not say why"):
        serve(simulation, picture)
    assert serve(simulation, picture) == expected


def test_a_library_that_cannot_start_is_explained(simulate, monkeypatch):
    """The bindings raise a bare TypeError, and the library's log says why, if anything does."""

    def fails(library: object, logger: ILogger) -> None:
        logger.log(ILogger.ERROR, words)
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr("simulated_tensorrt.Library.Runtime", fails)
    words = "CUDA initialization failure with error: 35"
    with pytest.raises(ExecutorError, match=r"tensorrt could not open the GPU .*error: 35.*: the driver is too old"):
        simulate()
    words = "CUDA initialization failure with error: 2, out of memory"
    with pytest.raises(GpuMemoryError, match="tensorrt could not open the GPU"):
        simulate()


def test_no_memory_needed_and_an_error_said_is_an_error(simulate, expected, picture, monkeypatch):
    simulation = simulate()
    own = Context.update_device_memory_size_for_shapes

    def fails(context: Context) -> int:
        if context.engine.component != "t5":
            return own(context)
        context.engine.logger.log(ILogger.ERROR, "shapes are not consistent")
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(Context, "update_device_memory_size_for_shapes", fails)
        with pytest.raises(ExecutorError, match="t5: TensorRT did not say what memory it needs: shapes are not"):
            serve(simulation, picture)
    assert serve(simulation, picture) == expected


@pytest.mark.parametrize("call", ["begin_capture", "end_capture", "instantiate"])
def test_recording_that_fails_costs_the_graph_alone(simulate, picture, expected, call: str):
    simulation = simulate()
    simulation.cuda.fail(call, 0, "cudaErrorStreamCaptureInvalidated")
    for _ in range(3):
        assert serve(simulation, picture) == expected
    assert simulation.graphs == 0


@pytest.mark.parametrize("component", ["conditioner", "denoiser", "vae_decoder"])
def test_capture_that_breaks(simulate, picture, expected, component: str):
    simulation = simulate()
    broken: list[str] = []

    def breaks(asked: str) -> bool:
        broken.append(asked)
        return asked == component

    simulation.library.faults["capture"] = breaks
    for _ in range(3):
        assert serve(simulation, picture) == expected
    assert component in broken
    assert simulation.graphs == 0


def test_memory_that_is_short_while_recording_is_asked_for_again(simulate, picture, expected):
    simulation = simulate()
    assert serve(simulation, picture) == expected
    simulation.cuda.fail("instantiate", 0)
    assert serve(simulation, picture) == expected
    assert simulation.graphs == 0
    assert serve(simulation, picture) == expected
    assert simulation.graphs == 1


def test_bindings_that_raise(simulate, picture, expected):
    simulation = simulate()
    error = once("denoiser")

    def raises(component: str) -> bool:
        if error(component):
            raise RuntimeError("bad cast")
        return False

    simulation.library.faults["context"] = raises
    with pytest.raises(ExecutorError, match="denoiser: TensorRT raised bad cast"):
        serve(simulation, picture)
    assert serve(simulation, picture) == expected


def test_launch_that_fails(simulate, picture, expected):
    simulation = simulate()
    for _ in range(2):
        serve(simulation, picture)
    simulation.cuda.fail("launch", 0, "cudaErrorUnknown")
    with pytest.raises(ExecutorError, match="launch failed"):
        serve(simulation, picture)
    assert serve(simulation, picture) == expected


@pytest.mark.parametrize("last", range(STEPS))
def test_cancel_after_every_step(simulate, picture, expected, last: int):
    simulation, cancel = simulate(), threading.Event()
    for _ in range(2):
        if last == 0:
            cancel.set()
        with pytest.raises(Cancelled, match=f"after step {last} of {STEPS}"):
            serve(simulation, picture, cancel=cancel, on_step=lambda done, of: cancel.set() if done == last else None)
        cancel.clear()
        assert serve(simulation, picture) == expected


@pytest.mark.parametrize("component", ["t5", "denoiser"])
def test_plan_replaced_under_us(simulate, picture, planned_bundle: Bundle, tmp_path, component: str):
    """A network that is loaded for its turn is checked each time."""
    bundle = Bundle.open(shutil.copytree(planned_bundle.path, tmp_path / "bundle"))
    simulation = simulate(bundle=bundle, residencies={component: Residency.TURN, "conditioner": Residency.TURN})
    expected = serve(simulation, picture)
    path = simulation.engines._store.path(component, simulation.plans[component].key)
    good = path.read_bytes()
    path.write_bytes(good.replace(b"weights", b"Weights"))
    with pytest.raises(PlanError, match="was altered: its hash is not its manifest's"):
        serve(simulation, picture, prompt="another")
    path.write_bytes(good)
    assert serve(simulation, picture) == expected


@pytest.mark.parametrize("code", ["cudaErrorIllegalAddress", "cudaErrorLaunchFailure"])
def test_sticky_error_ends_the_executor_and_says_so(simulate, picture, code: str):
    simulation = simulate()
    serve(simulation, picture)
    simulation.cuda.fail("synchronize", 0, code)
    with pytest.raises(ExecutorError, match="this process cannot use the GPU any more: end it and start another"):
        serve(simulation, picture)
    with pytest.raises(ExecutorError, match="the GPU was lost to this process earlier"):
        serve(simulation, picture)


def test_callback_that_raises(simulate, picture, expected):
    simulation = simulate()

    def fail(done: int, of: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        serve(simulation, picture, on_step=fail)
    assert serve(simulation, picture) == expected


def test_memory_that_is_too_small_for_two_shapes_serves_them_in_turn(simulate, picture):
    roomy = simulate()
    serve(roomy, picture)
    one = roomy.cuda.allocated
    tight = simulate(memory_bytes=one + (64 << 10))
    for _ in range(2):
        assert serve(tight, picture) == serve(roomy, picture)
        assert tight.latents(size=(128, 128), steps=2) == roomy.latents(size=(128, 128), steps=2)


def test_errors_are_kontext_errors():
    assert issubclass(GpuMemoryError, ExecutorError)
    assert issubclass(ExecutorError, KontextError)
