"""How long one edit takes, stage by stage, on whatever runs the bundle.

    python -m kontext_trt.benchmarks.edit_latency BUNDLE [--executor cuda] [--steps 28] [--repeat 3] [--no-graphs]

Prints one JSON line: seconds to open and load, the first request's stages, medians of the repeated ones with the caches
cleared between them, and the device memory in use by everybody. Exits with 1 if a seed's pictures are not all the same.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import time

import numpy as np
from PIL import Image

from ..engine.doctor import diagnose
from ..engine.sizes import squarest
from ..runtime.kontext import Kontext
from ..runtime.options import Device, ExecutorOptions, OnnxRuntimeOptions, TensorRtOptions
from ..runtime.result import Result


def picture(size: tuple[int, int]) -> Image.Image:
    """A smooth colourful picture."""
    coarse = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def device_bytes_used() -> int | None:
    """Used memory of the CUDA device, everybody's; None without one, or without cuda-python."""
    try:
        runtime = importlib.import_module("cuda.bindings.runtime")
    except ImportError:
        return None
    status, free, total = runtime.cudaMemGetInfo()
    return int(total - free) if status == runtime.cudaError_t.cudaSuccess else None


def executor_options(name: str, graphs: bool) -> ExecutorOptions:
    """`cpu` and `cuda` are ONNX Runtime's."""
    if name == "tensorrt":
        return TensorRtOptions(graphs=graphs)
    return OnnxRuntimeOptions(device=Device(name), graphs=graphs)


def stages(results: list[Result]) -> dict[str, float]:
    names = results[0].milliseconds
    medians = {name: statistics.median(result.milliseconds[name] for result in results) for name in names}
    steps = [step for result in results for step in result.step_milliseconds]
    return {name: round(value, 2) for name, value in {**medians, "step": statistics.median(steps)}.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="How long one edit takes, stage by stage.")
    parser.add_argument("bundle")
    parser.add_argument("--executor", choices=("cpu", "cuda", "tensorrt"), default="cpu")
    parser.add_argument("--no-graphs", action="store_true", help="enqueue call by call")
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.perf_counter()
    with Kontext.open(
        arguments.bundle, executor=executor_options(arguments.executor, not arguments.no_graphs)
    ) as kontext:
        opened = time.perf_counter()
        kontext.load()
        loaded = time.perf_counter()
        size = squarest(kontext.sizes)
        image = picture(size)

        def edit() -> Result:
            kontext.forget()
            return kontext.edit(image, "make it blue", steps=arguments.steps, seed=arguments.seed)

        first = edit()
        results = [edit() for _ in range(arguments.repeat)]
        same = all(np.array_equal(first.outputs[0].latents, result.outputs[0].latents) for result in results)
        report = diagnose()
        print(
            json.dumps(
                {
                    "date": time.strftime("%Y-%m-%d"),
                    "executor": kontext.executor.name,
                    "graphs": not arguments.no_graphs,
                    "gpus": [gpu.name for gpu in report.gpus],
                    "size": size,
                    "steps": arguments.steps,
                    "open_s": round(opened - start, 2),
                    "load_s": round(loaded - opened, 2),
                    "first_ms": stages([first]),
                    "median_ms": stages(results),
                    "device_bytes_used": device_bytes_used(),
                    "same_picture_every_time": same,
                }
            )
        )
        if not same:
            sys.exit("one seed gave different pictures: these times are worth nothing")


if __name__ == "__main__":
    main()
