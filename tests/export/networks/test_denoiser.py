"""The denoiser's update: a plain Euler step bit for bit, or velocities weighted and a part kept as the formula says."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from plain_steps import plain_step

from kontext_trt import Bundle
from kontext_trt.export.emulate.torch_device import TorchDevice
from kontext_trt.export.emulate.torch_executor import TorchExecutor
from kontext_trt.runtime.executors.onnxruntime_cpu import OnnxRuntimeCpu
from kontext_trt.runtime.flow.executor import Executor

Open = Callable[[Bundle], Executor]
Arrays = dict[str, np.ndarray]


@pytest.fixture(params=["onnxruntime", "torch"])
def opened(request: pytest.FixtureRequest) -> Iterator[Open]:
    executors: list[Executor] = []

    def make(bundle: Bundle) -> Executor:
        executors.append(
            OnnxRuntimeCpu(bundle) if request.param == "onnxruntime" else TorchExecutor(bundle, TorchDevice.CPU)
        )
        return executors[-1]

    yield make
    for executor in executors:
        executor.close()


@pytest.fixture
def step(bundle: Bundle) -> Arrays:
    """Random inputs of a step of two pictures, as schema 2 has them."""
    dims, draw = bundle.manifest.model.dims, np.random.default_rng(0)
    sizes = {"b": 2, "n": 24, "m": 15, "s": dims.text_length + 39}
    older = bundle.component("denoiser").of_schema(2)
    return {
        port.name: draw.standard_normal(dims.resolve(port.dims, **sizes)).astype(np.float32) for port in older.inputs
    }


def bits(array: np.ndarray) -> np.ndarray:
    return array.view(np.uint32)


def test_a_plain_step_is_that_of_schema_2_bit_for_bit(opened: Open, bundle: Bundle, older_bundle: Bundle, step: Arrays):
    made = opened(bundle).run("denoiser", step | plain_step(step["latents"]))
    (before,) = opened(older_bundle).run("denoiser", step).values()
    assert np.abs(made["velocity"]).std() > 0.1
    np.testing.assert_array_equal(bits(made["next_latents"]), bits(before))
    by_hand = step["latents"] + step["step_size"] * made["velocity"]
    np.testing.assert_array_equal(bits(made["next_latents"]), bits(by_hand))


def test_what_counts_nothing_changes_no_bit(opened: Open, bundle: Bundle, step: Arrays):
    """Whatever is bound where nothing is kept and the step before does not count, as long as it is finite."""
    executor, plain, draw = opened(bundle), plain_step(step["latents"]), np.random.default_rng(1)
    shape = step["latents"].shape
    others = {
        name: (1e30 * draw.standard_normal(shape)).astype(np.float32)
        for name in ("previous_velocity", "clean", "noise")
    }
    one, two = executor.run("denoiser", step | plain), executor.run("denoiser", step | plain | others)
    for name in one:
        np.testing.assert_array_equal(bits(one[name]), bits(two[name]))


def test_velocities_are_weighted_and_a_mask_keeps(opened: Open, bundle: Bundle, step: Arrays):
    draw, shape = np.random.default_rng(2), step["latents"].shape
    given = {name: draw.standard_normal(shape).astype(np.float32) for name in ("previous_velocity", "clean", "noise")}
    given["keep"] = draw.choice([0.0, 0.25, 1.0], shape).astype(np.float32)
    given["velocity_weights"], given["next_sigma"] = np.float32([2, -1]), np.float32([0.4])
    executor = opened(bundle)
    plain = executor.run("denoiser", step | plain_step(step["latents"]))
    made = executor.run("denoiser", step | given)
    np.testing.assert_array_equal(made["velocity"], plain["velocity"], "the network's own, before it is weighted")
    moved = step["latents"] + step["step_size"] * (2 * made["velocity"] - given["previous_velocity"])
    kept = 0.6 * given["clean"] + 0.4 * given["noise"]
    np.testing.assert_allclose(
        made["next_latents"], given["keep"] * kept + (1 - given["keep"]) * moved, rtol=1e-5, atol=1e-5
    )
