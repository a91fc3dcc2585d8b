"""Executors that nobody closes let go of their files when nobody has them, and those that are closed then."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from few_descriptors import num_descriptors

from kontext_trt import Bundle, Kontext
from kontext_trt.export.emulate.torch_device import TorchDevice
from kontext_trt.export.emulate.torch_executor import TorchExecutor
from kontext_trt.runtime.executors.onnxruntime_cpu import OnnxRuntimeCpu
from kontext_trt.runtime.flow.executor import Executor

Make = Callable[[Bundle], Executor]


def make_a_picture(bundle: Bundle, make: Make) -> Kontext:
    kontext = Kontext(bundle, make(bundle))
    kontext.generate("x", seed=0, steps=1, size=(32, 32))
    return kontext


@pytest.mark.usefixtures("without_looking_for_cycles")
@pytest.mark.parametrize(
    "make", [OnnxRuntimeCpu, lambda bundle: TorchExecutor(bundle, TorchDevice.CPU)], ids=["onnxruntime", "torch"]
)
def test_files_are_let_go_of(bundle: Bundle, make: Make):
    make_a_picture(bundle, make).close()  # what is opened once per process is open by now
    before = num_descriptors()
    kontext = make_a_picture(bundle, make)
    assert num_descriptors() > before
    kontext.close()
    assert num_descriptors() == before
    kontext = make_a_picture(bundle, make)
    assert num_descriptors() > before
    del kontext
    assert num_descriptors() == before
