"""Gains switched off one by one: the pictures stay, and what was off was off."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MethodType
from typing import cast

import numpy as np
import pytest
from PIL import Image
from simulated_cuda import SimulatedCuda
from simulated_tensorrt import GPU, Library, SimulatedFlavour, add_plans

from kontext_trt import Bundle, Device, Kontext, OnnxRuntimeOptions, TensorRtOptions
from kontext_trt.benchmarks.bench import ablation
from kontext_trt.benchmarks.bench.ablation import WARM_UP, ablate
from kontext_trt.benchmarks.bench.bench import BenchOptions, run_bench
from kontext_trt.benchmarks.bench.picture_borders import DeviceCarrier, border_ms, carry_on_host, to_bytes, to_float
from kontext_trt.benchmarks.bench.records import Case, decode_lines, encode_lines
from kontext_trt.benchmarks.bench.roofline import hoisting
from kontext_trt.benchmarks.bench.sections import sections
from kontext_trt.benchmarks.bench.undivided import UndividedExecutor
from kontext_trt.benchmarks.bench.unpruned import check_unpruned, write_unpruned
from kontext_trt.engine.bundle.bundle import BUILT
from kontext_trt.engine.components import Precision
from kontext_trt.engine.errors import BundleError, ExecutorError
from kontext_trt.engine.flavour import FlavourName
from kontext_trt.engine.plans.coverage import Coverage
from kontext_trt.runtime.device import cuda as cuda_module
from kontext_trt.runtime.executors import open as executors
from kontext_trt.runtime.executors.open import open_executor
from kontext_trt.runtime.executors.options import ExecutorOptions
from kontext_trt.runtime.flow.executor import Executor

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

        def counted(_: Executor, component, inputs, outputs):
            self.runs.append(component)
            if component == "conditioner":
                self.timesteps.append(inputs["timesteps"].tolist())
            compute(component, inputs, outputs)

        inner._compute = MethodType(counted, inner)  # pyright: ignore[reportAttributeAccessIssue]

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


@pytest.fixture(scope="module")
def unpruned(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_unpruned(Bundle.open(bundle_path), tmp_path_factory.mktemp("unpruned") / "bundle")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, Counting]]:
    """The bundles that an ablation opens, and what counts their runs."""
    found: list[tuple[Path, Counting]] = []

    def counting(bundle: Bundle, options: ExecutorOptions) -> Executor:
        found.append((bundle.path, Counting(open_executor(bundle, options))))
        return cast(Executor, found[-1][1])

    monkeypatch.setattr(ablation, "open_executor", counting)
    return found


@pytest.mark.check  # a denoiser is traced for it
def test_every_gain_has_a_row(bundle: Bundle, unpruned: Bundle, image: Path, opened):
    """On the CPU there are no graphs to switch off."""
    found = ablate(bundle, CPU, EDIT, image, repeat=1, unpruned=unpruned)
    assert [row.gain for row in found.rows] == ["hoisting", "last-block pruning", "caches", "uint8 pictures"]
    assert found.notes == ()
    assert [path for path, _ in opened] == [bundle.path, bundle.path, unpruned.path]
    best, undivided, whole = (counting.runs for _, counting in opened)
    requests = WARM_UP + 1
    assert best.count("conditioner") == 2 * requests  # with the caches and without
    assert best.count("t5") == 1 + requests
    assert undivided.count("conditioner") == undivided.count("denoiser") == requests * EDIT.steps
    assert whole.count("conditioner") == requests
    assert all(row.with_ms > 0 and row.without_ms > 0 and row.about for row in found.rows)
    assert decode_lines(encode_lines([found])) == [found]


def test_on_a_device_the_request_graph_has_one_too(bundle_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
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
    # two requests from the caches, three encoded anew, two undivided; none of those without graphs
    assert cuda.calls["launch"] == 7
    assert [row.gain for row in found.rows] == ["hoisting", "request graph", "caches", "uint8 pictures"]
    without = ablate(bundle, TensorRtOptions(graphs=False), GENERATE, repeat=1)
    assert [row.gain for row in without.rows] == ["hoisting", "caches", "uint8 pictures"]
    assert cuda.allocated == 0
    assert cuda.open_handles == 0
    copy = Bundle.open(shutil.copytree(bundle.path, tmp_path / "unplanned", ignore=shutil.ignore_patterns(*BUILT)))
    other = ablate(bundle, TensorRtOptions(), GENERATE, repeat=1, unpruned=copy)
    (failed,) = [row for row in other.rows if row.failure]
    assert (failed.gain, failed.with_ms, failed.without_ms) == ("last-block pruning", None, None)
    assert failed.failure.startswith(f"{copy.path} has no clip plan")
    (section,) = sections([other])
    assert ("last-block pruning", "one step", "", "", "failed", "") in section.rows
    assert section.note.startswith(f"without last-block pruning: {copy.path} has no clip plan")


@pytest.mark.check  # a denoiser is traced for it
def test_a_bundle_that_another_library_runs_is_no_measure(bundle: Bundle, unpruned: Bundle):
    with pytest.raises(ExecutorError, match=r"is run by onnxruntime \(cpu\), the other bundle by tensorrt 10"):
        ablation._opened_alike(unpruned, CPU, "tensorrt 10.13 (cuda:0)")


@pytest.mark.check  # a denoiser traced for this alone
@pytest.mark.check  # a denoiser is traced for it
def test_unpruned_is_of_the_same_weights_and_another_denoiser(
    bundle: Bundle, unpruned: Bundle, wide_bundles, tmp_path: Path
):
    check_unpruned(bundle, unpruned)
    with pytest.raises(BundleError, match="has the same denoiser; make what pruning is measured against with: python"):
        check_unpruned(bundle, bundle)
    with pytest.raises(BundleError, match="is of other weights, precisions or operators"):
        check_unpruned(bundle, wide_bundles(Precision.FP32))
    with pytest.raises(BundleError, match="it is pruned, too"):
        hoisting(unpruned, GENERATE, bundle)
    with pytest.raises(BundleError, match="has the same denoiser"):
        run_bench(BenchOptions(bundle=bundle.path, out=tmp_path / "out", ablation=True, unpruned=bundle.path))
    assert not (tmp_path / "out").exists()


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
    repainted = replace(one, outputs=(replace(one.outputs[0], image=other.outputs[0].image),))
    for result in (other, repainted):
        for exact in (False, True):
            with pytest.raises(ExecutorError, match=r"without it the .*: PSNR [\d.]+ dB, SNR -"):
                ablation._row("hoisting", "", lambda result: 1.0, [one], [result], exact=exact)
    assert ablation._row("hoisting", "", lambda result: 1.0, [one], [near]).with_ms == 1.0
    with pytest.raises(ExecutorError, match=r"the latents are others, and must be the same: PSNR 200.0 dB"):
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
