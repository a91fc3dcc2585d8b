"""Measures what each component takes on the device, loaded and running alone, beside what the residency plan reckons.

    python -m kontext_trt.benchmarks.costs.device_memory BUNDLE [--executor tensorrt]

The shapes are one edit's at the squarest size. It prints one line per component and one JSON line.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from ...engine.bundle.bundle import Bundle
from ...engine.components import COMPONENTS
from ...runtime.device.executor import DeviceExecutor
from ...runtime.executors.open import open_executor
from ...runtime.executors.options import Device, OnnxRuntimeOptions, TensorRtOptions
from ...runtime.flow.tensors import empty, input_specs, usual_shape
from ..program import run_main


def inputs(bundle: Bundle, component: str) -> dict[str, np.ndarray]:
    """Return zeros of the shapes that one edit of the usual size gives a component."""
    shape, dims = usual_shape(bundle), bundle.manifest.model.dims
    (rows, columns), m = shape.grid, shape.num_reference_tokens
    sizes = {"b": 1, "n": rows * columns, "m": m, "N": shape.num_steps, "h": rows, "w": columns}
    sizes["s"] = dims.text_length + sizes["n"] + m
    shapes = {
        port.name: [int(extent) for extent in dims.resolve(port.dims, **sizes)]
        for port in bundle.component(component).inputs
    }
    arrays = {name: empty(spec) for name, spec in input_specs(bundle, component, shapes).items()}
    for array in arrays.values():
        array[...] = 0
    return arrays


def main() -> None:
    """Load and run each component, and print what it takes."""
    parser = argparse.ArgumentParser(description="What each component takes on the device.")
    parser.add_argument("bundle")
    parser.add_argument("--executor", choices=("tensorrt", "onnxruntime"), default="onnxruntime")
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.bundle)
    options = TensorRtOptions() if arguments.executor == "tensorrt" else OnnxRuntimeOptions(device=Device.CUDA)
    executor = open_executor(bundle, options)
    assert isinstance(executor, DeviceExecutor)
    rows = {}
    for component in COMPONENTS:
        before = executor.free_bytes()
        executor.load(component)
        loaded = executor.free_bytes()
        executor.run(component, inputs(bundle, component))
        after = executor.free_bytes()
        cost = executor.residency.costs[component]
        rows[component] = {
            "weights": before - loaded,
            "activations": loaded - after,
            "reckoned_weights": cost.weights,
            "reckoned_activations": cost.activations,
        }
        print(f"{component:12}", "  ".join(f"{name} {size / 2**20:,.0f} MiB" for name, size in rows[component].items()))
    executor.close()
    print(json.dumps({"executor": executor.name, "bytes": rows}))


if __name__ == "__main__":
    run_main(main)
