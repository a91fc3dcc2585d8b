"""On a GPU, by each executor that is installed: the CPU's picture, one launch a request, and no memory that grows."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from on_gpu import CountingCuda, available, psnr

from kontext_trt import BudgetError, Cancelled, Device, Kontext, OnnxRuntimeOptions
from kontext_trt.engine.components import COMPONENTS
from kontext_trt.runtime.device.graphs import RecordedGraph
from kontext_trt.runtime.device.residency import Residency
from kontext_trt.runtime.flow.stages import Step

pytestmark = pytest.mark.gpu

SAME_DB = 50


def serve(kontext: Kontext, picture, **request):
    request = {"prompt": "make it blue", "seed": 1, "steps": 4, "size": (144, 112)} | request
    reference = request.pop("reference", (128, 128))
    if reference is None:
        return kontext.generate(**request)
    return kontext.edit(picture(*reference), **request)


def latents(result) -> list:
    return [output.latents.tolist() for output in result.outputs]


@pytest.mark.parametrize(
    "request_of",
    [{}, {"reference": None}, {"seed": [1, 2], "reference": (96, 192)}, {"size": (64, 64), "steps": 28}],
)
def test_picture_is_the_cpus(open_session, cpu: Kontext, picture, request_of: dict):
    kontext, expected = open_session(), serve(cpu, picture, **request_of)
    for _ in range(3):  # enqueued, recorded, replayed
        result = serve(kontext, picture, **request_of)
        for ours, theirs in zip(result.outputs, expected.outputs, strict=True):
            assert psnr(ours.image, theirs.image) > SAME_DB


def test_recorded_equals_enqueued_bit_for_bit(open_session, picture):
    plain, recorded = open_session(graphs=False), open_session()
    for seed in range(3):
        for request in ({"steps": 8}, {"steps": 28, "size": (64, 64)}, {"reference": None}):
            one, two = serve(plain, picture, seed=seed, **request), serve(recorded, picture, seed=seed, **request)
            assert latents(one) == latents(two)
            np.testing.assert_array_equal(one.image, two.image)
    assert len(recorded.executor._graphs) == 3
    assert len(plain.executor._graphs) == 0


def test_one_launch_and_one_wait_a_request(open_session, picture):
    kontext = open_session()
    cuda = CountingCuda.opened[-1]
    for _ in range(3):
        serve(kontext, picture, steps=28)
    before = cuda.calls.copy()
    serve(kontext, picture, steps=28)
    made = cuda.calls - before
    del made["cudaEventElapsedTime"], made["cudaSetDevice"]  # neither enqueues nor waits
    assert made == {"cudaGraphLaunch": 1, "cudaStreamSynchronize": 1}


def test_two_hundred_requests_of_mixed_sizes_take_no_more_memory(open_session, picture):
    kontext, dice = open_session(), np.random.default_rng(0)
    cuda = CountingCuda.opened[-1]
    shapes = [((144, 112), None), ((64, 64), None), ((128, 128), (128, 128)), ((64, 64), (96, 192))]

    def once(index: int) -> None:
        size, reference = shapes[index]
        serve(kontext, picture, size=size, reference=reference, steps=2, seed=int(dice.integers(100)))

    for index in range(len(shapes)):
        for _ in range(3):
            once(index)
    free = cuda.memory()[0]
    for _ in range(200):
        once(int(dice.integers(len(shapes))))
    assert cuda.memory()[0] >= free


def test_steps_follow_each_other_at_once(open_session, picture, record_property):
    """GPU time between the end of a step and the start of the next, by events: two records lie between them."""
    kontext, steps = open_session(), 28
    serve(kontext, picture, steps=steps)
    (workspace,) = kontext.executor._workspaces.values()
    device = workspace._device

    def enqueue(events) -> None:
        for index in range(steps):
            device.cuda.record(events[2 * index], device.stream)
            Step(index).run(workspace)
            device.cuda.record(events[2 * index + 1], device.stream)
        device.cuda.record(events[2 * steps], device.stream)

    relaxed = device.engines.allocates
    graph = RecordedGraph.record(device.cuda, device.stream, enqueue, 2 * steps, relaxed=relaxed)
    try:
        for _ in range(3):
            graph.launch(device.stream)
            device.cuda.synchronize(device.stream)
        spans = graph.timeline.milliseconds()
    finally:
        graph.close()
    idle_us = 1e3 * float(np.median(spans[1:-1:2]))
    step_us = 1e3 * float(np.median(spans[::2]))
    print(f"\n{kontext.executor.name}: a step {step_us:.1f} us, between two {idle_us:.2f} us")
    record_property("idle_us", idle_us)
    assert idle_us < 200, "0.1 % of a 200 ms step"


@pytest.mark.parametrize("turns", [("t5",), ("clip", "t5", "vae_encoder", "conditioner"), tuple(COMPONENTS)])
def test_every_residency_gives_the_same_picture(open_session, picture, turns):
    everything, kontext = open_session(), open_session()
    residencies = kontext.executor.residency.residencies
    for name in turns:
        residencies[name] = Residency.TURN
    for prompt in ("x", "x", "y"):
        one, two = serve(everything, picture, prompt=prompt), serve(kontext, picture, prompt=prompt)
        assert latents(one) == latents(two)


def test_budget_that_is_too_small_is_refused(open_session):
    with pytest.raises(BudgetError, match="it needs at least"):
        open_session(vram_bytes=1 << 20)


def test_cancelled_after_each_step_and_usable_again(open_session, picture):
    kontext, steps = open_session(), 5
    whole = latents(serve(kontext, picture, steps=steps))
    for last in range(1, steps):
        cancel = threading.Event()

        def watch(done: int, of: int, last: int = last, cancel: threading.Event = cancel) -> None:
            if done == last:
                cancel.set()

        with pytest.raises(Cancelled, match=f"after step {last}"):
            serve(kontext, picture, steps=steps, cancel=cancel, on_step=watch)
        assert latents(serve(kontext, picture, steps=steps)) == whole


def test_two_on_one_gpu_leave_each_other_alone(open_session, picture):
    """Sessions of ONNX Runtime share an arena, on which recorded graphs write."""
    one, wide = open_session(), {"size": (128, 128), "seed": [1, 2], "reference": (96, 192)}
    whole = [latents(serve(one, picture)) for _ in range(3)][-1]

    def ask(kontext: Kontext, found: list) -> None:
        found += [latents(serve(kontext, picture, **wide)) for _ in range(20)]

    for _ in range(2):
        other, found = open_session(), []
        expected = [latents(serve(other, picture, **wide)) for _ in range(3)][-1]
        assert latents(serve(one, picture)) == whole
        asking = threading.Thread(target=ask, args=(other, found))
        asking.start()
        while asking.is_alive():
            assert latents(serve(one, picture)) == whole
        asking.join()
        assert found == [expected] * 20
        other.close()
        for _ in range(3):
            assert latents(serve(one, picture)) == whole


def test_capture_that_fails_is_done_without(open_session, picture, monkeypatch):
    kontext = open_session()
    whole = latents(serve(kontext, picture))
    cuda = CountingCuda.opened[-1]
    begin = cuda.begin_capture

    def broken(stream, *, relaxed: bool) -> None:
        begin(stream, relaxed=relaxed)
        cuda._call("cudaStreamSynchronize", stream)  # not allowed in a capture

    monkeypatch.setattr(cuda, "begin_capture", broken)
    for _ in range(2):
        assert latents(serve(kontext, picture)) == whole


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_sixteen_bits(bundles, cpu: Kontext, picture, precision: str):
    if "onnxruntime" not in available():
        pytest.skip("onnxruntime-gpu is not installed")
    expected = serve(cpu, picture).image
    with Kontext.open(bundles(precision), executor=OnnxRuntimeOptions(device=Device.CUDA)) as kontext:
        for _ in range(3):
            assert psnr(serve(kontext, picture).image, expected) > 40
