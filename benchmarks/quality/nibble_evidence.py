"""Measures in trained networks what tells the order of NVFP4 codes in a byte: MLPs' norms per hidden unit.

    python -m kontext_trt.benchmarks.quality.nibble_evidence MODEL.onnx ...

For every two products that follow one another and widen and narrow again, by how much the right order of the second's
inputs is likelier than that of exchanged neighbours, as `export.checkpoint.nvfp4_evidence` reckons it: from e^30 on it
is taken to be found. Weights may be quantized to int8 with one scale each.
"""

from __future__ import annotations

import argparse
import warnings
from itertools import pairwise
from pathlib import Path

from ...export.environment import require_export
from ..program import run_main

PRODUCTS = ("MatMul", "MatMulInteger")


def evidence(path: Path) -> list[float]:
    """Return the difference in log likelihood of both orders, of each MLP of an ONNX file."""
    import torch
    from onnx import load, numpy_helper

    from ...export.checkpoint.nvfp4_evidence import pair_evidence

    graph = load(path).graph
    constants = {one.name: one for one in graph.initializer}
    constants |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    weights = []
    for node in graph.node:
        if node.op_type in PRODUCTS and node.input[1] in constants:
            weight = numpy_helper.to_array(constants[node.input[1]]).astype("float32")
            if len(node.input) == 4 and node.input[3] in constants:
                weight = weight - numpy_helper.to_array(constants[node.input[3]]).reshape(-1)[0].astype("float32")
            if weight.ndim == 2:
                weights.append(torch.from_numpy(weight.copy()))
    found = []
    for first, second in pairwise(weights):
        inputs, hidden = first.shape
        if hidden == second.shape[0] and hidden >= 2 * inputs:
            value = pair_evidence(first.square().sum(0), second.square().sum(1))
            found += [] if value is None else [value]
    return found


def main() -> None:
    """Measure and print the evidence of each file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", type=Path, nargs="+", metavar="MODEL.onnx")
    files = parser.parse_args().files
    require_export()
    warnings.simplefilter("ignore", DeprecationWarning)  # onnx's, of numpy
    for file in files:
        found = evidence(file)
        each = ", ".join(f"{value:+.0f}" for value in found)
        print(f"{file}: e^{sum(found):+.0f} of {len(found)} MLPs ({each})")


if __name__ == "__main__":
    run_main(main)
