"""Measures what the GPU reaches with plain kernels: the limits that a benchmark's stages are held against.

python -m kontext_trt.benchmarks.bench.ceilings RESULT
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ...engine.components import Precision
from ...engine.errors import KontextError
from ...engine.number_types import NUMBER_TYPES
from ...runtime.executors.fused_kernels import FP8, FP8_ATTENTION
from ..program import first_line, result_file, run_main
from .child import ChildError, run_child
from .fp8_attention import fp8_attention
from .records import Ceilings, Unmeasured

if TYPE_CHECKING:
    import torch

MODULE = "kontext_trt.benchmarks.bench.ceilings"
NO_DEVICE = "no CUDA device"
DEVICE = "cuda"
COPIED_BYTES = 2 << 30
PRODUCTS = ((8704, 3072, 12288), (8192, 8192, 8192))
"""The products as (m, k, n): an MLP of the denoiser over 512 + 4096 + 4096 tokens, and the square of GPUs' figures."""
ATTENTION = (1, 24, 8704, 128)
"""The (batch, heads, tokens, head width) of the denoiser."""
FORMATS = tuple(precision.value for precision in (Precision.BF16, Precision.FP16, Precision.FP32))
BACKENDS = {
    "bf16": {"cudnn": "CUDNN_ATTENTION", "flash": "FLASH_ATTENTION"},
    "fp16": {"cudnn": "CUDNN_ATTENTION", "flash": "FLASH_ATTENTION"},
    "fp32": {"efficient": "EFFICIENT_ATTENTION"},
}
WARM_UP_MS = 200.0
NUM_RUNS = 20


def measure_ceilings(*, timeout_s: float = 120) -> Ceilings | Unmeasured:
    """Measure in a child process, about 15 s.

    In `products` and `attention` "bf16" is the best for that format, and "bf16 8704x3072x12288" or "bf16 cudnn" one of
    those that it was the best of. fp32 is measured without TF32. FP8 is there where the GPU has it, attention in FP8 by
    the runtime's own call, with the extra `fused`; else `how` says what kept it away.
    """
    if importlib.util.find_spec("torch") is None:
        return Unmeasured(engine="ceilings", reason="torch is not installed")
    with tempfile.TemporaryDirectory() as name:
        found = Path(name) / "ceilings.json"
        try:
            run_child("-m", MODULE, str(found), log=Path(name) / "log", timeout_s=timeout_s)
        except ChildError as error:
            return Unmeasured(engine="ceilings", reason=str(error))
        return msgspec.json.decode(found.read_bytes(), type=Ceilings | Unmeasured)


def measure() -> Ceilings | Unmeasured:
    """Measure in this process, on the current CUDA device."""
    import torch

    if not torch.cuda.is_available():
        return Unmeasured(engine="ceilings", reason=NO_DEVICE)
    notes: list[str] = []
    copy = copy_rate(torch, COPIED_BYTES)
    products = {f"{name} {m}x{k}x{n}": rate for name, (m, k, n), rate in _product_rates(torch, notes)}
    attention = {f"{name} {backend}": rate for name, backend, rate in _attention_rates(torch, notes)}
    how = (
        f"torch {torch.__version__}, CUDA events, median of {NUM_RUNS} after {WARM_UP_MS:.0f} ms of the same, "
        f"normally distributed values; copy of {COPIED_BYTES / 2**30:.0f} GiB"
    )
    return Ceilings(
        copy=copy,
        products=_with_best(products),
        attention=_with_best(attention),
        how="; ".join([how, *notes]),
    )


def _with_best(rates: Mapping[str, float]) -> dict[str, float]:
    best: dict[str, float] = {}
    for name, rate in rates.items():
        number_format = name.partition(" ")[0]
        best[number_format] = max(best.get(number_format, 0.0), rate)
    return best | dict(rates)


def copy_rate(torch: Any, size_bytes: int) -> float:
    """Return the bytes read and written per second, from device memory to device memory."""
    source = torch.empty(size_bytes, dtype=torch.uint8, device=DEVICE).random_()
    target = torch.empty_like(source)
    return 2 * size_bytes / seconds(torch, lambda: target.copy_(source))


def _product_rates(torch: Any, notes: list[str]) -> list[tuple[str, tuple[int, int, int], float]]:
    found = []
    for name, product in _products(torch, notes).items():
        for shape in PRODUCTS:
            m, k, n = shape
            try:
                rate = 2 * m * k * n / seconds(torch, product(m, k, n))
            except RuntimeError as error:  # what this GPU has no kernel for
                notes.append(f"{name} {m}x{k}x{n}: {first_line(error)}")
                continue
            found.append((name, shape, rate))
    return found


def _products(torch: Any, notes: list[str]) -> dict[str, Callable[[int, int, int], Callable[[], object]]]:
    """Return a maker by number format: from (m, k, n) to a call that multiplies (m, k) by the transpose of (n, k).

    Linear layers multiply so.
    """

    def plain(dtype: torch.dtype) -> Callable[[int, int, int], Callable[[], object]]:
        def make(m: int, k: int, n: int) -> Callable[[], object]:
            x, weight = (torch.randn(rows, k, device=DEVICE).to(dtype) for rows in (m, n))
            result = torch.empty(m, n, device=DEVICE, dtype=dtype)
            return lambda: torch.mm(x, weight.T, out=result)

        return make

    def fp8(m: int, k: int, n: int) -> Callable[[], object]:
        x, weight = (torch.randn(rows, k, device=DEVICE).to(torch.float8_e4m3fn) for rows in (m, n))
        one = torch.ones((), device=DEVICE)
        options = {"scale_a": one, "scale_b": one, "out_dtype": torch.bfloat16, "use_fast_accum": True}
        return lambda: torch._scaled_mm(x, weight.T, **options)

    products = {name: plain(getattr(torch, NUMBER_TYPES[name].torch)) for name in FORMATS}
    if _has(torch, FP8, "products", notes):
        products["fp8"] = fp8
    return products


def _has(torch: Any, least: tuple[int, int], what: str, notes: list[str]) -> bool:
    """Return whether the GPU has what in FP8 needs this compute capability; note it if not."""
    found = torch.cuda.get_device_capability()
    if found < least:
        notes.append(f"no fp8 {what} below compute capability {_dotted(least)}: this GPU has {_dotted(found)}")
    return found >= least


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def _attention_rates(torch: Any, notes: list[str]) -> list[tuple[str, str, float]]:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    batch, heads, tokens, width = ATTENTION
    operations = 4 * batch * heads * tokens * tokens * width
    found = []
    for name, backends in BACKENDS.items():
        q, k, v = (torch.randn(ATTENTION, device=DEVICE).to(getattr(torch, NUMBER_TYPES[name].torch)) for _ in range(3))
        for backend, member in backends.items():
            try:
                with sdpa_kernel(getattr(SDPBackend, member)):
                    attend = torch.nn.functional.scaled_dot_product_attention
                    taken = seconds(torch, lambda q=q, k=k, v=v, attend=attend: attend(q, k, v))
            except RuntimeError as error:  # what this GPU or build has no kernel for
                notes.append(f"{name} {backend}: {first_line(error)}")
                continue
            found.append((name, backend, operations / taken))
    if _has(torch, FP8_ATTENTION, "attention", notes):
        try:
            with fp8_attention(torch, ATTENTION, DEVICE) as attend:
                found.append(("fp8", "cudnn", operations / seconds(torch, attend)))
        except (KontextError, RuntimeError) as error:  # RuntimeError is torch's and cuDNN's
            notes.append(f"fp8 cudnn: {first_line(error)}")
    return found


def seconds(torch: Any, call: Callable[[], object]) -> float:
    """Return the median time of one of many calls in a row, after the clocks have settled."""
    once = max(_milliseconds(torch, call, 2))
    _milliseconds(torch, call, 1 + int(WARM_UP_MS / once))
    return statistics.median(_milliseconds(torch, call, NUM_RUNS)) / 1000


def _milliseconds(torch: Any, call: Callable[[], object], runs: int) -> list[float]:
    """Return the milliseconds of each of so many runs, all of them enqueued before any is waited for."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(runs + 1)]
    events[0].record()
    for event in events[1:]:
        call()
        event.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in pairwise(events)]


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description="What the GPU reaches with plain kernels.")
    parser.add_argument("result", type=result_file, help="the JSON file to write")
    result = parser.parse_args().result
    result.write_bytes(msgspec.json.encode(measure()))


if __name__ == "__main__":
    run_main(main)
