"""Runs a quantized bundle for real, by the runtime, so that torch's emulation of it has something to stand beside."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...engine.bundle.bundle import Bundle
from ...engine.errors import ExecutorError, QuantizationError
from ...engine.system.gpus import find_gpus
from ...runtime.executors.fused_kernels import fused_components, obstacles
from ...runtime.executors.open import open_executor
from ...runtime.executors.options import Device, OnnxRuntimeOptions
from ...runtime.kontext import Kontext
from ...runtime.operators.functions import formats_of
from ...runtime.outputs.result import Result
from .compare_options import CompareCase


def check_real(bundle: Bundle, device: Device) -> None:
    """Refuse a bundle that the runtime cannot run in FP8 there.

    Raises:
        QuantizationError: It has no fused operators in FP8.
        ExecutorError: There is no GPU, or the kernels do not run on it.
    """
    components = [
        name
        for name in fused_components(bundle)
        if any(form.has_fp8 for form in formats_of(bundle.read_graph(name).data))
    ]
    if not components:
        raise QuantizationError(
            f"{bundle.path} has no fused operators in FP8, so it is only emulated: leave out --executor, or export the "
            "checkpoint with --operators fused and quantize that bundle with --recipe fp8"
        )
    if device is Device.CUDA:
        gpus, reason = find_gpus()
        if not gpus:
            raise ExecutorError(f"--executor cuda needs a GPU: {reason}")
        problems = list(obstacles(bundle, components, gpus[0]))
        if problems:
            raise ExecutorError(f"the FP8 kernels of {bundle.path} do not run here: {'; '.join(problems)}")


def run_for_real(
    bundle: Bundle, cases: Sequence[CompareCase], steps: int, device: Device, on_case: Callable[[], None]
) -> tuple[str, list[Result]]:
    """Return the executor's name and the result of each case.

    On a CUDA device kernels compute, on the CPU the operators' bodies.

    Raises:
        ExecutorError: The runtime fails.
    """
    with Kontext(bundle, open_executor(bundle, OnnxRuntimeOptions(device=device, graphs=False))) as kontext:
        results = []
        for case in cases:
            results.append(kontext.run(case.request(steps)))
            on_case()
        return kontext.executor.name, results
