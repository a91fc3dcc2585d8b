"""Gains switched off one by one: the pictures stay, and what was off was off."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from simulated_cuda import SimulatedCuda
from simulated_tensorrt import GPU, Library, SimulatedFlavour, add_plans

from kontext_trt import Bundle, Device, Kontext, OnnxRuntimeOptions, TensorRtOptions
from kontext_trt.benchmarks.bench import ablation
from kontext_trt.benchmarks.bench.ablation import ablate
from kontext_trt.benchmarks.bench.picture_borders import (
    DeviceCarrier,
    border_ms,
    carry_on_host,
    to_bytes,
    to_float,
)
from kontext_trt.benchmarks.bench.records import Case, decode_lines, encode_lines
from kontext_trt.benchmarks.bench.undivided import UndividedExecutor
from kontext_trt.engine.coverage import Coverage
from kontext_trt.engine.errors import ExecutorError
from kontext_trt.engine.flavour import FlavourName
from kontext_trt.runtime import executors
from kontext_trt.runtime.device import cuda as cuda_module
from kontext_trt.runtime.executor import Executor
from kontext_trt.runtime.executors import open_executor

CPU = OnnxRuntimeOptions(device=Device.CPU, threads=1)
GENERATE = Case(size=(64, 64), reference=None, steps=3, batch=1, seed=0, guidance=2.5, prompt="x")
EDIT = Case(size=(64, 48), reference=(128, 128), steps=2, batch=2, seed=5, guidance=2.5, prompt="x")


@pytest.fixture
def image(tmp_path: Path, picture: Callable[..., Image.Image]) -> Path:
    picture(128, 128).save(tmp_path / "reference.png")
    return tmp_path / "reference.png"


class Counting:
    """An executor that counts runs by component and how many timesteps the conditioner was given."""

    def __init__(self, inner: Executor) -> None:
        self.inner, self.name, self.runs, self.timesteps = inner, inner.name, [], []
        compute = inner._compute  # pyright: ignore[reportAttributeAccessIssue]

        def counted(component, inputs, outputs):
            self.runs.append(component)
            if component == "conditioner":
                self.timesteps.append(inputs["timesteps"].tolist())
            compute(component, inputs, outputs)

        inner._compute = counted  # pyright: ignore[reportAttributeAccessIssue]

    def __getattr__(self, name: str):
        return getattr(self.inner, name)


def test_undivided_steps_condition_themselves(bundle: Bundle, image: Path):
    """The same picture within rounding, by one conditioner a step with one timestep each, in the flow's order."""
    request = {"seed": (1, 2), "steps": 3, "size": (64, 48)}
    with Kontext(bundle, open_executor(bundle, CPU)) as kontext:
        divided = kontext.edit(image, "x", **request)
    counting = Counting(open_executor(bundle, CPU))
    with Kontext(bundle, UndividedExecutor(counting)) as kontext:
        undivided = [kontext.edit(image, "x", **request) for _ in range(2)][-1]
        kontext.load()
        assert set(kontext.executor.run("clip", {"input_ids": np.zeros((1, 77), np.int32)})) == {"pooled"}
    assert [output.latents for output in divided.outputs] == [
        pytest.approx(output.latents, abs=1e-4) for output in undivided.outputs
    ]
    steps = [name for name in counting.runs if name in ("conditioner", "denoiser")]
    assert steps == ["conditioner", "denoiser"] * 6
    (first,), (second,), (third,) = counting.timesteps[:3]
    assert 1 == first > second > third
    assert counting.timesteps[3:] == counting.timesteps[:3]


def test_every_gain_has_a_row(bundle: Bundle, image: Path, tmp_path: Path):
    """On the CPU there are no graphs to switch off. A copy stands in for the bundle without pruning."""
    unpruned = Bundle.open(shutil.copytree(bundle.path, tmp_path / "unpruned"))
    found = ablate(bundle, CPU, EDIT, image, repeat=1, unpruned=unpruned)
    assert [row.gain for row in found.rows] == ["hoisting", "last-block pruning", "caches", "uint8 pictures"]
    assert all(row.with_ms > 0 and row.without_ms > 0 and row.about for row in found.rows)
    assert decode_lines(encode_lines([found])) == [found]


def test_on_a_device_the_request_graph_has_one_too(bundle_copy: Path, monkeypatch: pytest.MonkeyPatch):
    """TensorRT's engines are bound to one shape each, and undivided ones to one timestep."""
    bundle, cuda = Bundle.open(bundle_copy), SimulatedCuda()
    flavour = SimulatedFlavour(Library(cuda, bundle))
    monkeypatch.setattr(executors, "find_gpus", lambda: ((GPU,), ""))
    monkeypatch.setattr(executors, "installed_flavours", lambda: (FlavourName.TENSORRT,))
    monkeypatch.setattr(executors, "load_flavour", lambda name: flavour)
    monkeypatch.setattr(cuda_module, "CudaPython", lambda device: cuda)
    monkeypatch.setattr(ablation, "CudaPython", lambda device: cuda)
    add_plans(bundle, Coverage(sizes=((64, 64), (128, 128)), max_steps=8))
    found = ablate(bundle, TensorRtOptions(), GENERATE, repeat=1)
    assert [row.gain for row in found.rows] == ["hoisting", "request graph", "caches", "uint8 pictures"]
    without = ablate(bundle, TensorRtOptions(graphs=False), GENERATE, repeat=1)
    assert [row.gain for row in without.rows] == ["hoisting", "caches", "uint8 pictures"]
    assert cuda.allocated == 0
    assert cuda.open_handles == 0


def test_without_caches_every_request_is_encoded(bundle: Bundle, image: Path):
    with Kontext.open(bundle, executor=CPU) as kontext:
        for forget in (True, False):
            results = ablation._results(kontext, EDIT, image, 2, forget=forget)
            assert [{"text", "encode"} <= result.milliseconds.keys() for result in results] == [forget, forget]


def test_another_picture_is_an_error(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whether the difference is large, or small where there must be none."""
    with Kontext.open(bundle, executor=CPU) as kontext:
        one, other = (kontext.generate("x", seed=seed, steps=2, size=(64, 64)) for seed in (0, 1))
    near = replace(one, outputs=(replace(one.outputs[0], latents=one.outputs[0].latents + 1e-6),))
    with pytest.raises(ExecutorError, match=r"without hoisting the picture is another: PSNR [\d.]+ dB, at least 30 dB"):
        ablation._row("hoisting", "", lambda result: 1.0, [one], [other])
    assert ablation._row("hoisting", "", lambda result: 1.0, [one], [near]).with_ms == 1.0
    with pytest.raises(ExecutorError, match=r"without caches the picture is another.*must be the same"):
        ablation._row("caches", "", lambda result: 1.0, [one], [near], exact=True)


def test_a_reference_and_its_file_go_together(bundle: Bundle, image: Path):
    for case, file in ((EDIT, None), (GENERATE, image)):
        with pytest.raises(ValueError, match="needs the reference's file"):
            ablate(bundle, CPU, case, file)


def test_conversions_on_the_host_give_every_picture_back(picture: Callable[..., Image.Image]):
    every = np.arange(768, dtype=np.uint8).reshape(16, 16, 3)
    assert np.array_equal(to_bytes(to_float(every)), every)
    assert (to_float(every).min(), to_float(every).max(), to_float(every).shape) == (-1, 1, (3, 16, 16))
    as_bytes, as_floats = border_ms(np.asarray(picture(256, 256)), carry_on_host, 5)
    assert 0 < as_bytes < as_floats
    with pytest.raises(ExecutorError, match="came back otherwise"):
        border_ms(every, lambda array: np.zeros_like(array), 1)


def test_pictures_go_to_a_device_and_back(picture: Callable[..., Image.Image]):
    cuda, image = SimulatedCuda(), np.asarray(picture(64, 48))
    with DeviceCarrier(cuda, image) as carry:
        assert np.array_equal(carry(image), image)
        assert np.array_equal(carry(to_float(image)), to_float(image))
    assert cuda.allocated == 0
    assert cuda.open_handles == 0
    cuda.fail("malloc_host")
    with pytest.raises(ExecutorError), DeviceCarrier(cuda, image):
        pass
    assert cuda.allocated == 0
    assert cuda.open_handles == 0
