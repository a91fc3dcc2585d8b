"""What is bound is what the session or the engine says: a graph of other types or shapes is not run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from relisted import write_anew

from kontext_trt import Bundle, BundleError, ExecutorError, Kontext, PlanError
from kontext_trt.engine.bundle.bundle import MANIFEST
from kontext_trt.engine.components import COMPONENTS, Precision
from kontext_trt.runtime.executors.onnxruntime_cpu import OnnxRuntimeCpu
from kontext_trt.runtime.executors.ports import DYNAMIC, PortType, disagreements, wanted_ports


def claim(bundle: Path, *components: str, precision: str) -> Bundle:
    """A bundle whose manifest says another precision of graphs."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    for name in components:
        manifest["graphs"][name]["precision"] = precision
    write_anew(bundle / MANIFEST, json.dumps(manifest).encode())
    return Bundle.open(bundle)


def test_a_float32_graph_that_is_called_float16_is_not_run(bundle_copy: Path) -> None:
    """Buffers of half its size would be bound to it."""
    opened = claim(bundle_copy, "conditioner", "denoiser", precision="fp16")
    with (
        Kontext.open(opened) as kontext,
        pytest.raises(BundleError, match=r"modulation is output fp32 \[any, any, 32, 64\], not output fp16"),
    ):
        kontext.generate("x", steps=1, seed=0, size=(32, 32))


@pytest.mark.parametrize(
    ("dim", "components"), [("vectors", ["conditioner", "denoiser"]), ("channels", ["vae_decoder"])]
)
def test_an_output_of_another_width_is_not_bound(bundle_copy: Path, dim: str, components: list[str]) -> None:
    manifest = json.loads((bundle_copy / MANIFEST).read_text())
    manifest["model"]["dims"][dim] -= 1
    write_anew(bundle_copy / MANIFEST, json.dumps(manifest).encode())
    for component in components:
        with pytest.raises(BundleError, match=r"onnx is not as its manifest says: .*; do not use this bundle"):
            OnnxRuntimeCpu(Bundle.open(bundle_copy)).load(component)


def test_another_name_and_one_too_many_are_said(bundle: Bundle) -> None:
    wanted = wanted_ports(bundle, "clip")
    found = {"ids": wanted["input_ids"], "pooled": wanted["pooled"]}
    assert list(disagreements(wanted, wanted)) == []
    assert list(disagreements(wanted, found)) == [
        "ids is input int32 [any, 77], not there",
        "input_ids is missing, not input int32 [any, 77]",
    ]


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({}, True),
        ({"shape": (DYNAMIC, DYNAMIC)}, True),
        ({"shape": (4, 77)}, True),
        ({"shape": (DYNAMIC, 76)}, False),
        ({"shape": (DYNAMIC, 77, 1)}, False),
        ({"element_type": "int64"}, False),
        ({"output": True}, False),
    ],
)
def test_what_is_fixed_must_be_the_same(change: dict[str, object], fits: bool) -> None:
    port = PortType(output=False, element_type="int32", shape=(DYNAMIC, 77))
    assert port.agrees(replace(port, **change)) is fits  # pyright: ignore[reportArgumentType]


def test_every_component_of_a_sound_bundle_agrees(bundle: Bundle) -> None:
    executor = OnnxRuntimeCpu(bundle)
    for component in COMPONENTS:
        executor.load(component)


def test_an_engine_of_another_type_is_not_bound(simulate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan and its manifest are sound; what the engine says of itself is not what buffers were made by."""
    simulation = simulate()
    own = simulation.library.bundle
    graphs = {**own.manifest.graphs, "clip": replace(own.manifest.graphs["clip"], precision=Precision.FP32)}
    graphs["denoiser"] = replace(graphs["denoiser"], precision=Precision.FP16)
    simulation.library.bundle = Bundle(path=own.path, manifest=replace(own.manifest, graphs=graphs))
    with pytest.raises(PlanError, match=r"denoiser: the plan is not as the bundle says: .*input fp16.*not input fp32"):
        simulation.latents()


@pytest.mark.parametrize("component", list(COMPONENTS))
def test_an_engine_that_would_write_more_than_its_buffer_is_not_run(simulate, picture, component: str) -> None:
    simulation = simulate()
    simulation.library.faults["shape"] = lambda asked: asked == component
    with pytest.raises(ExecutorError, match=rf"{component}: TensorRT would write \w+ \[.*\], not \["):
        simulation.latents(image=picture(48, 80))
    assert component not in simulation.library.executions
