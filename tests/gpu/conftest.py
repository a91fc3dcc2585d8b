"""Bundles and sessions for tests on a GPU.

They need neither torch nor diffusers if KONTEXT_TRT_TEST_BUNDLES names a folder that
`python -m kontext_trt.benchmarks.fixtures.tiny_bundles FOLDER` has made, perhaps on another machine. A calibration of
the small model that lies there as small-calibration.json is taken.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from on_gpu import CountingCuda, available

from kontext_trt import Device, Kontext, OnnxRuntimeOptions, TensorRtOptions
from kontext_trt.engine.plans.coverage import Coverage
from kontext_trt.runtime.device import cuda as cuda_module

COVERAGE = Coverage(sizes=((64, 64), (96, 192), (128, 128), (144, 112)), batch=2, max_steps=28)


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_module, "CudaPython", CountingCuda)


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The tiny bundle of a precision, copied: plans are built into it."""
    folder = tmp_path_factory.mktemp("bundles")
    given = os.environ.get("KONTEXT_TRT_TEST_BUNDLES")

    def bundle(precision: str) -> Path:
        if not (folder / precision).exists():
            if given is None:
                from kontext_trt.benchmarks.fixtures.tiny_bundles import write_tiny_bundles

                write_tiny_bundles(folder / "made")
            shutil.copytree(Path(given or folder / "made") / precision, folder / precision)
        return folder / precision

    return bundle


@pytest.fixture(scope="session")
def planned(bundles) -> Path:
    """The float32 bundle with plans of all six components, built here by the installed TensorRT."""
    from kontext_trt import build_plans

    build_plans(bundles("fp32"), flavour="tensorrt", coverage=COVERAGE)
    return bundles("fp32")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "open_session" in metafunc.fixturenames:
        reason = "neither TensorRT nor onnxruntime-gpu is installed"
        if not available() and os.environ.get("KONTEXT_TRT_REQUIRE_GPU"):
            raise pytest.UsageError(reason)
        skip = pytest.mark.skip(reason=reason)
        metafunc.parametrize("open_session", available() or [pytest.param("", marks=skip)], indirect=True)


@pytest.fixture
def open_session(request: pytest.FixtureRequest, bundles) -> Iterator[Callable[..., Kontext]]:
    """Opens the float32 bundle with one of the executors."""
    path = request.getfixturevalue("planned") if request.param == "tensorrt" else bundles("fp32")
    opened: list[Kontext] = []

    def make(**options) -> Kontext:
        executor = TensorRtOptions(**options)
        if request.param == "onnxruntime":
            executor = OnnxRuntimeOptions(device=Device.CUDA, **options)
        opened.append(Kontext.open(path, executor=executor))
        return opened[-1]

    yield make
    for kontext in opened:
        kontext.close()


@pytest.fixture
def cpu(bundles) -> Iterator[Kontext]:
    """The reference: the same float32 bundle on the CPU."""
    with Kontext.open(bundles("fp32"), executor=OnnxRuntimeOptions(device=Device.CPU)) as kontext:
        yield kontext
