"""Whether a machine runs what there is no bundle of yet."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kontext_trt import MissingDependencyError
from kontext_trt.engine.flavour import FlavourName
from kontext_trt.engine.system.gpus import Gpu
from kontext_trt.runtime.executors import here
from kontext_trt.runtime.executors.here import why_not_here

ADA = Gpu(index=0, name="RTX 4090", major=8, minor=9, memory_bytes=1)
TURING = Gpu(index=0, name="T4", major=7, minor=5, memory_bytes=1)
NO_DRIVER = "the NVIDIA driver is not installed"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Says what there is: GPUs, whether ONNX Runtime has CUDA (None: it is missing), libraries for plans."""

    def make(*gpus: Gpu, cuda: bool | None = False, flavours: tuple[FlavourName, ...] = ()) -> None:
        def has_cuda() -> bool:
            if cuda is None:
                raise MissingDependencyError("ONNX Runtime is not installed; install one of: pip install ...")
            return cuda

        monkeypatch.setattr(here, "find_gpus", lambda: (gpus, "" if gpus else NO_DRIVER))
        monkeypatch.setattr(here, "has_cuda", has_cuda)
        monkeypatch.setattr(here, "installed_flavours", lambda: flavours)

    return make


def test_a_cpu_runs_fp32_fp16_and_fp8_on_them(machine: Callable[..., None]) -> None:
    machine()
    assert why_not_here({"fp32", "fp16", "fp8"}) == ""


def test_bf16_on_a_cpu_is_told_with_the_option_that_helps(machine: Callable[..., None]) -> None:
    machine()
    assert why_not_here({"bf16", "fp32"}) == (
        "ONNX Runtime has no bf16 kernels on the CPU, and there is no GPU (the NVIDIA driver is not installed). For "
        "this machine export with --precision fp32"
    )
    assert why_not_here({"bf16", "fp8"}).endswith(
        "export with --precision fp32, and quantize what comes of it with kontext-trt quantize"
    )
    assert why_not_here({"fp32", "nvfp4"}).startswith("NVFP4 is run by plans of TensorRT and TensorRT-RTX alone, and")


def test_a_gpu_runs_them_with_onnx_runtime_or_plans(machine: Callable[..., None]) -> None:
    machine(ADA, cuda=True)
    assert why_not_here({"bf16", "fp8"}) == ""
    machine(ADA, cuda=None, flavours=(FlavourName.TENSORRT_RTX,))
    assert why_not_here({"bf16"}) == ""
    assert why_not_here({"bf16", "nvfp4"}).startswith("RTX 4090: sm_89 has no nvfp4")
    machine(TURING, cuda=True)
    assert why_not_here({"bf16"}) == "T4: sm_75 has no bf16, which starts at sm_80; export with --precision fp16"


def test_a_gpu_that_nothing_installed_uses(machine: Callable[..., None]) -> None:
    machine(ADA)
    reason = why_not_here({"bf16"})
    assert "the installed ONNX Runtime was not built for CUDA. For RTX 4090: pip uninstall onnxruntime && " in reason
    assert "pip install 'kontext-trt[gpu]'. For the CPU: export with --precision fp32" in reason


def test_a_machine_on_which_nothing_is_installed(machine: Callable[..., None]) -> None:
    machine(cuda=None)
    assert why_not_here({"fp32"}) == (
        "nothing that runs bundles is installed: ONNX Runtime is not installed; install one of: pip install ..."
    )
