"""A benchmark's results, made up."""

from __future__ import annotations

from kontext_trt.benchmarks.bench.records import EngineRun, Memory, Spread

MEMORY = Memory(
    components={}, arena=None, buffers=None, graphs=None, device_peak=None, host_peak=1 << 30, host_anonymous=1 << 29
)


def spread(value: float) -> Spread:
    return Spread.of([value, value, 2 * value])


def made_run(engine: str, step: float) -> EngineRun:
    stages = {"tokenize": 1.0, "text": 20.0, "encode": 40.0, "denoise": 4 * step, "decode": 80.0}
    total = sum(stages.values())
    return EngineRun(
        engine=engine,
        executor="none",
        bundle=None,
        precision="bf16",
        cold={"import": 100.0, "first request": 2 * total},
        warm={name: spread(value) for name, value in {**stages, "total": total, "step": step}.items()},
        memory=MEMORY,
        clocks=None,
    )
