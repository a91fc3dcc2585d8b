"""What a machine is said to be able to do."""

import importlib.metadata

import pytest

from kontext_trt.engine.system import doctor
from kontext_trt.engine.system.gpus import Gpu

GPU = Gpu(index=0, name="a GPU", major=9, minor=0, memory_bytes=1 << 30)


@pytest.mark.parametrize("missing", ["cuda-python", "onnxruntime-gpu", None])
def test_cuda_needs_its_bindings_too(monkeypatch: pytest.MonkeyPatch, missing: str | None):
    monkeypatch.setattr(doctor, "_version", lambda package: None if package == missing else "1")
    monkeypatch.setattr(doctor, "find_gpus", lambda: ((GPU,), ""))
    parts = {part.name: part for part in doctor.diagnose().parts}
    assert parts["run on CUDA with ONNX Runtime"].usable == (missing is None)
    for name in ("run TensorRT plans", "run TensorRT-RTX plans"):
        assert parts[name].usable == (missing != "cuda-python")
    assert parts["build TensorRT-RTX plans"].usable


@pytest.mark.parametrize("gpus", [0, 1, 2])
def test_requests_are_shared_by_two_gpus_at_least(monkeypatch: pytest.MonkeyPatch, gpus: int):
    monkeypatch.setattr(doctor, "_version", lambda package: "1")
    monkeypatch.setattr(doctor, "find_gpus", lambda: ((GPU,) * gpus, ""))
    parts = {part.name: part for part in doctor.diagnose().parts}
    assert parts["share requests among GPUs"].usable is (gpus == 2)
    assert parts["share requests among GPUs"].command.startswith("needs two NVIDIA GPUs, then pip") is (gpus < 2)
    assert parts["run fused operators and FP8 on CUDA"].usable is (gpus > 0)


def test_without_a_gpu_nothing_runs_on_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "_version", lambda package: "1")
    monkeypatch.setattr(doctor, "find_gpus", lambda: ((), "the driver shows no device"))
    usable = {part.name for part in doctor.diagnose().parts if part.usable}
    assert usable == {"run on the CPU", "build TensorRT-RTX plans", "export checkpoints", "calibrate and quantize"}


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-cu12", "tensorrt-cu13"])
def test_a_package_of_one_cuda_version_is_seen(monkeypatch: pytest.MonkeyPatch, name: str):
    """Such a package can be installed without the one that only depends on it."""

    def version(package: str) -> str:
        if package in (name, "cuda-python"):
            return "1"
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    monkeypatch.setattr(doctor, "find_gpus", lambda: ((GPU,), ""))
    assert {part.name for part in doctor.diagnose().parts if part.usable} == {
        "run TensorRT plans",
        "build TensorRT plans",
    }
