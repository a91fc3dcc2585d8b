"""What swapping LoRAs costs, of the tiny model; docs/how-to/lora.md has it of the small and of the full one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kontext_trt import Bundle
from kontext_trt.benchmarks.bench.records import Case
from kontext_trt.benchmarks.bench.roofline import work_of
from kontext_trt.benchmarks.costs.lora_swap_cost import branch_share, component_bytes, measure_swaps


def test_a_swap_takes_a_fraction_of_a_second(
    branched_bundle: Callable[..., Bundle], lora_file: Callable[[int], Path], tmp_path: Path
):
    """Loosely: a machine of tests is busy. Half a second would be a build or a session made anew."""
    copies = [Path(shutil.copy(lora_file(seed), tmp_path)) for seed in (1, 2)]
    found = measure_swaps(branched_bundle(), (copies[0], copies[1]), repeat=2)
    assert 0 < found["new"] < 500
    assert found["remembered"] < 500


def test_a_branchs_share_is_that_of_its_matrices(branched_bundle: Callable[..., Bundle]):
    """Every token goes through every layer, but in the last block, where keys and values alone are of all."""
    bundle = branched_bundle()
    case = Case(size=(96, 192), reference=(128, 128), steps=1, batch=1, seed=0, guidance=2.5, prompt="x")
    counted = work_of(bundle, "denoiser", case)
    found = branch_share(counted, bundle)
    assert bundle.manifest.branches is not None
    layers = bundle.manifest.branches.layers["denoiser"]
    tokens = 512 + 6 * 12 + 8 * 8
    most = sum(2 * tokens * 4 * (layer.inputs + layer.outputs) for layer in layers) / 1e12
    assert 0.3 * most < found["branch_TFLOP"] < most
    products = sum(one.operations for one in counted.heavy if ".swapped." not in one.node)
    assert found["branch_percent_of_FLOPs"] == pytest.approx(1e14 * found["branch_TFLOP"] / products)
    assert found["branch_GB"] * 1e9 > 2 * component_bytes(bundle, "denoiser")
