"""Which executor opens a bundle, and what is said when none can."""

import shutil
from pathlib import Path
from typing import Any, cast

import pytest
from simulated_cuda import SimulatedCuda
from simulated_tensorrt import GPU, Library, SimulatedFlavour, add_plans

from kontext_trt import (
    AnyExecutor,
    BudgetError,
    Bundle,
    Device,
    ExecutorError,
    Kontext,
    MissingDependencyError,
    OnnxRuntimeOptions,
    OptionError,
    PlanError,
    RequestError,
    TensorRtOptions,
    UntrustedPlanError,
)
from kontext_trt.engine.flavour import FlavourName
from kontext_trt.engine.plans.coverage import Coverage
from kontext_trt.runtime.device import cuda as cuda_module
from kontext_trt.runtime.executors import open as executors
from kontext_trt.runtime.executors.options import ExecutorName, executor_options

COVERAGE = Coverage(sizes=((128, 128),), max_steps=8)


@pytest.fixture
def machine(bundle_copy: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A simulated machine with a GPU and TensorRT, and a bundle without plans."""
    bundle, cuda = Bundle.open(bundle_copy), SimulatedCuda()
    flavour = SimulatedFlavour(Library(cuda, bundle))
    monkeypatch.setattr(executors, "find_gpus", lambda: ((GPU,), ""))
    monkeypatch.setattr(executors, "installed_flavours", lambda: (FlavourName.TENSORRT,))
    monkeypatch.setattr(executors, "load_flavour", lambda name: flavour)
    monkeypatch.setattr(cuda_module, "CudaPython", lambda device: cuda)
    return bundle


def test_plans_that_fit_are_run_by_default(machine: Bundle):
    add_plans(machine, COVERAGE)
    with Kontext.open(machine) as kontext:
        assert kontext.executor.name == "tensorrt 10.99.0 (cuda:0)"
        assert kontext.generate("x", steps=2, seed=0, size=(128, 128)).size == (128, 128)
        assert len(kontext.residency) == 7
        assert kontext.residency[-1].startswith("buffers")


def test_without_plans_onnx_runtime_does_it(machine: Bundle):
    with Kontext.open(machine) as kontext:
        assert kontext.executor.name == "onnxruntime (cpu)"
        assert kontext.residency == []


def test_plans_that_were_asked_for_and_are_missing(machine: Bundle):
    with pytest.raises(PlanError, match=r"has no clip plan for this machine\. Build it with: kontext-trt build"):
        Kontext.open(machine, executor=TensorRtOptions())


def test_plans_of_another_graph_are_not_run(machine: Bundle, caplog: pytest.LogCaptureFixture):
    add_plans(machine, COVERAGE)
    shutil.rmtree(machine.path / "plans" / "denoiser")
    with Kontext.open(machine) as kontext:
        assert kontext.executor.name == "onnxruntime (cpu)"
    (warning,) = caplog.messages
    assert warning.startswith("ONNX Runtime runs this bundle, not its plans: ")
    assert "has no denoiser plan" in warning


def test_plans_that_the_library_refuses_are_not_run(
    machine: Bundle, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """As TensorRT-RTX does on GPUs that it does not know: a portable plan says nothing of them."""
    add_plans(machine, COVERAGE)
    monkeypatch.setattr(SimulatedFlavour, "refusal", lambda self, data: "this GPU is not supported")
    with Kontext.open(machine) as kontext:
        assert kontext.executor.name == "onnxruntime (cpu)"
    assert "will not open" in caplog.text
    assert "this GPU is not supported" in caplog.text
    with pytest.raises(PlanError, match="this GPU is not supported"):
        Kontext.open(machine, executor=TensorRtOptions())


def test_plans_of_others_must_be_trusted(machine: Bundle, tmp_path: Path):
    add_plans(machine, COVERAGE)
    elsewhere = Path(shutil.move(machine.path / "plans", tmp_path / "plans"))
    for signature in elsewhere.glob("*/*.sig"):
        signature.unlink()
    with pytest.raises(UntrustedPlanError, match=r"is not signed by your key .*add --trust"):
        Kontext.open(machine, executor=TensorRtOptions(plans=elsewhere))
    with Kontext.open(machine, executor=TensorRtOptions(plans=elsewhere, trust=True)) as kontext:
        assert kontext.generate("x", steps=1, seed=0, size=(128, 128)).size == (128, 128)


def test_plans_that_others_may_write_must_be_trusted(machine: Bundle):
    add_plans(machine, COVERAGE)
    for plan in (machine.path / "plans").glob("*/*.plan"):
        plan.chmod(0o664)
    with pytest.raises(UntrustedPlanError, match=r"can be written by others.*add --trust"):
        Kontext.open(machine)
    for options in (AnyExecutor(trust=True), TensorRtOptions(trust=True)):
        with Kontext.open(machine, executor=options) as kontext:
            assert kontext.executor.name.startswith("tensorrt")
            assert kontext.generate("x", steps=1, seed=0, size=(128, 128)).size == (128, 128)


def test_device_that_is_not_there(machine: Bundle):
    with pytest.raises(ExecutorError, match="there is no GPU 3: this machine has 1"):
        Kontext.open(machine, executor=TensorRtOptions(device_id=3))


def test_budget_is_planned_before_anything_is_loaded(machine: Bundle):
    add_plans(machine, COVERAGE)
    with pytest.raises(BudgetError, match=r"1\.0 MiB of GPU memory are too little for this bundle"):
        Kontext.open(machine, executor=TensorRtOptions(vram_bytes=1 << 20))


def test_without_a_gpu_tensorrt_says_so(bundle: Bundle, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(executors, "find_gpus", lambda: ((), "the NVIDIA driver is not installed"))
    with pytest.raises(ExecutorError, match="there is no GPU 0: the NVIDIA driver is not installed"):
        Kontext.open(bundle, executor=TensorRtOptions())


def test_onnx_runtime_without_cuda_says_what_to_install(bundle: Bundle):
    with pytest.raises(ExecutorError, match=r"pip uninstall onnxruntime && pip install 'kontext-trt\[gpu\]'"):
        Kontext.open(bundle, executor=OnnxRuntimeOptions(device=Device.CUDA))


def test_library_that_is_missing_names_the_command(machine: Bundle, monkeypatch: pytest.MonkeyPatch):
    def missing(name: FlavourName):
        raise MissingDependencyError("tensorrt is not installed; install it with: pip install 'kontext-trt[tensorrt]'")

    monkeypatch.setattr(executors, "load_flavour", missing)
    with pytest.raises(MissingDependencyError, match="pip install 'kontext-trt"):
        Kontext.open(machine, executor=TensorRtOptions())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("auto", AnyExecutor()),
        ("cpu", OnnxRuntimeOptions(device=Device.CPU)),
        ("cuda", OnnxRuntimeOptions(device=Device.CUDA)),
        ("tensorrt", TensorRtOptions(flavour=FlavourName.TENSORRT)),
        ("tensorrt_rtx", TensorRtOptions(flavour=FlavourName.TENSORRT_RTX)),
        ("tensorrt-rtx", TensorRtOptions(flavour=FlavourName.TENSORRT_RTX)),
    ],
)
def test_names_on_the_command_line(name: str, options):
    assert ExecutorName(name).options() == options
    assert executor_options(name) == executor_options(options) == options


def test_an_executor_is_named_in_python_as_on_the_command_line(machine: Bundle):
    with Kontext.open(machine, executor="cpu") as kontext:
        assert kontext.executor.name == "onnxruntime (cpu)"
    with pytest.raises(PlanError, match="has no clip plan for this machine"):
        Kontext.open(machine, executor="tensorrt")
    assert executor_options(None) == AnyExecutor()


@pytest.mark.parametrize("executor", ["gpu", "", 5, OnnxRuntimeOptions])
def test_another_executor_is_refused_with_the_list(bundle: Bundle, executor: Any):
    with pytest.raises(OptionError, match=r"executor must be one of auto, cpu, cuda, tensorrt, tensorrt_rtx, not "):
        Kontext.open(bundle, executor=executor)


def test_a_device_and_a_flavour_are_names_too():
    assert OnnxRuntimeOptions(device=cast("Device", "cpu")).device is Device.CPU
    assert TensorRtOptions(flavour=cast("FlavourName", "tensorrt-rtx")).flavour is FlavourName.TENSORRT_RTX
    with pytest.raises(OptionError, match="device must be one of auto, cpu, cuda, not 'gpu'"):
        OnnxRuntimeOptions(device=cast("Device", "gpu"))
    with pytest.raises(OptionError, match="flavour must be one of tensorrt, tensorrt_rtx, not 'trt'"):
        TensorRtOptions(flavour=cast("FlavourName", "trt"))


def test_a_budget_and_no_executor_leave_the_choice_of_executor(machine: Bundle):
    add_plans(machine, COVERAGE)
    with Kontext.open(machine, executor=ExecutorName.AUTO.options(vram_bytes=1 << 30, graphs=False)) as kontext:
        assert kontext.executor.name.startswith("tensorrt")


def test_size_outside_the_plans_is_refused_with_the_command(machine: Bundle):
    add_plans(machine, COVERAGE)
    with Kontext.open(machine) as kontext, pytest.raises(RequestError, match="build with --size"):
        kontext.generate("x", steps=1, seed=0, size=(64, 64))
