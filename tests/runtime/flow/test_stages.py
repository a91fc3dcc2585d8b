"""Steps hand velocities on, and keep what a mask says, whoever runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from kontext_trt import Bundle
from kontext_trt.export.emulate.torch_device import TorchDevice
from kontext_trt.export.emulate.torch_executor import TorchExecutor
from kontext_trt.runtime.executors.onnxruntime_cpu import OnnxRuntimeCpu
from kontext_trt.runtime.flow.encodings import schedule_inputs
from kontext_trt.runtime.flow.executor import Executor
from kontext_trt.runtime.flow.noise import starting_noise
from kontext_trt.runtime.flow.stages import Condition, Step
from kontext_trt.runtime.flow.tensors import RequestShape, request_tensors
from kontext_trt.runtime.inputs.prepared import PreparedRequest

WEIGHTS = np.array([[2, -1], [2, -1]], np.float32)
SHAPE = RequestShape(num_prompts=1, num_seeds=2, grid=(5, 3), references=((5, 3),), num_steps=2, masked=True)
REQUEST = PreparedRequest(prompts=("x",), seeds=(1, 2), size=(48, 80), steps=2, guidance=2.5)
Arrays = dict[str, np.ndarray]


@pytest.fixture(params=["onnxruntime", "torch", "simulated TensorRT"])
def executor(request: pytest.FixtureRequest, bundle: Bundle, simulate: Callable) -> Iterator[Executor]:
    if request.param == "simulated TensorRT":
        yield simulate().executor
        return
    opened = OnnxRuntimeCpu(bundle) if request.param == "onnxruntime" else TorchExecutor(bundle, TorchDevice.CPU)
    yield opened
    opened.close()


@pytest.fixture
def inputs(bundle: Bundle) -> Arrays:
    specs, draw = request_tensors(bundle, SHAPE), np.random.default_rng(0)
    drawn = {
        name: draw.standard_normal(specs[name].shape).astype(np.float32)
        for name in ("prompt_pooled", "prompt_text", "reference_0")
    }
    noise = np.concatenate(
        [starting_noise(seed, SHAPE.grid, 64, bundle.graph("denoiser").precision) for seed in (1, 2)]
    )
    keep = (draw.random(specs["keep"].shape) < 0.5).astype(np.float32)
    started = {"latents_even": noise, "noise": noise, "keep": keep, "velocity_weights": WEIGHTS}
    return schedule_inputs(bundle, SHAPE, REQUEST) | drawn | started


def test_two_steps_are_the_formulas(executor: Executor, inputs: Arrays):
    stages = (Condition(), Step(0), Step(1))
    names = ("first_latents", "latents_even", "velocity_odd", "velocity_even", "modulation")
    found = [executor.perform(SHAPE, stages, inputs, names).outputs for _ in range(3)][-1]  # by then it is recorded
    first, last = found["velocity_odd"], found["velocity_even"]
    assert np.abs(first - last).std() > 0.01
    latents, clean = inputs["latents_even"], inputs["reference_0"]  # the first reference, for every picture
    for velocity, before, step, after in (
        (first, np.zeros_like(first), 0, found["first_latents"]),
        (last, first, 1, found["latents_even"]),
    ):
        sigma, keep = inputs["next_sigmas"][step], inputs["keep"]
        kept = (1 - sigma) * clean + sigma * inputs["noise"]
        moved = latents + inputs["step_sizes"][step] * (2 * velocity - before)
        latents = keep * kept + (1 - keep) * moved
        np.testing.assert_allclose(after, latents, rtol=1e-5, atol=1e-5)
    kept = inputs["keep"] == 1
    np.testing.assert_array_equal(latents[kept], np.broadcast_to(clean, kept.shape)[kept])


def test_steps_take_the_sigmas_that_they_end_at(bundle: Bundle):
    inputs = schedule_inputs(bundle, SHAPE, REQUEST)
    np.testing.assert_array_equal(inputs["next_sigmas"][:, 0], [inputs["timesteps"][1], 0])
    np.testing.assert_array_equal(inputs["velocity_weights"], [[1, 0], [1, 0]])
    assert not inputs["zeros"].any()


def test_without_a_mask_one_tensor_of_zeros_stands_for_three(bundle: Bundle):
    masked = request_tensors(bundle, SHAPE)
    plain = request_tensors(bundle, replace(SHAPE, masked=False))
    assert masked.keys() - plain.keys() == {"keep", "clean", "noise"}
