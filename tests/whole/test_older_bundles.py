"""Bundles of schema 2 open and run as they did: their denoiser has fewer ports."""

from __future__ import annotations

import json
import lzma
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from bundle_fixtures import OLDER_DENOISER
from simulated_tensorrt import add_plans
from simulation import COVERAGE
from traced_graphs import Trace

from kontext_trt import Bundle, Kontext
from kontext_trt.engine.bundle.bundle import MANIFEST
from kontext_trt.engine.components import DENOISER, Precision
from kontext_trt.engine.plans.profiles import profile_of
from kontext_trt.export.emulate.torch_device import TorchDevice
from kontext_trt.export.emulate.torch_executor import TorchExecutor
from kontext_trt.export.graphs.recipes import make_recipe
from kontext_trt.export.graphs.trace import TraceOptions
from kontext_trt.export.quantize.quantize_bundle import quantize_bundle
from kontext_trt.export.tiny import tiny_config
from kontext_trt.runtime.executors.onnxruntime_cpu import OnnxRuntimeCpu

NEWER = {"previous_velocity", "velocity_weights", "keep", "clean", "noise", "next_sigma"}


def test_its_manifest_is_of_then(older_bundle: Bundle, bundle: Bundle):
    assert json.loads((older_bundle.path / MANIFEST).read_text())["schema"] == 2
    assert older_bundle.verify().problems == ()
    older, newer = (
        profile_of(one.component("denoiser"), COVERAGE, one.manifest.model) for one in (older_bundle, bundle)
    )
    assert newer.keys() - older.keys() == NEWER
    assert {name: newer[name] for name in older} == older


@pytest.mark.parametrize("run", [OnnxRuntimeCpu, lambda bundle: TorchExecutor(bundle, TorchDevice.CPU)])
def test_the_picture_is_that_of_the_newer_one(older_bundle: Bundle, bundle: Bundle, picture: Callable, run: Callable):
    found = []
    for one in (older_bundle, bundle):
        with Kontext(one, run(one)) as kontext:
            found.append(kontext.edit(picture(96, 80), "x", steps=3, seed=1))
    np.testing.assert_array_equal(found[0].outputs[0].latents, found[1].outputs[0].latents)
    assert found[0].image.tobytes() == found[1].image.tobytes()


def test_plans_of_it_run(older_bundle: Bundle, simulate: Callable, tmp_path: Path):
    planned = Bundle.open(shutil.copytree(older_bundle.path, tmp_path / "planned"))
    add_plans(planned, COVERAGE)
    older, newer = simulate(bundle=planned), simulate()
    assert [older.latents() for _ in range(3)] == [newer.latents() for _ in range(3)]
    assert older.graphs == 1


def test_quantizing_it_keeps_its_schema(older_bundle: Bundle, tmp_path: Path):
    made = quantize_bundle(older_bundle, tmp_path / "quantized", make_recipe("bf16", t5=True))
    assert (made.manifest.schema, made.manifest.features) == (2, ())


@pytest.mark.check  # the denoiser is traced for it
def test_its_graph_is_what_the_table_of_then_gives(traced: Trace):
    """Where the denoiser is written otherwise, older bundles keep the graph that they have, and so does the file."""
    options = TraceOptions(precision=Precision.FP32)
    anew = traced(DENOISER.of_schema(2), tiny_config(), options)
    kept = ir.from_proto(onnx.ModelProto.FromString(lzma.decompress(OLDER_DENOISER.read_bytes())))
    assert [value.name for value in anew.graph.inputs] == [value.name for value in kept.graph.inputs]
    assert [str(node) for node in anew.graph] == [str(node) for node in kept.graph]
