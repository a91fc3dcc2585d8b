"""Which components run kernels of fused operators, and what is said of those that do not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from fused_models import Sizes, attributes, model
from simulated_tensorrt import GPU

from kontext_trt.engine.components import COMPONENTS, Operators, Precision
from kontext_trt.runtime.executors import fused_kernels
from kontext_trt.runtime.executors.fused_kernels import fused_architecture, has_kernels
from kontext_trt.runtime.operators.catalogue import DEFINITIONS, DOMAIN, VERSION


@pytest.fixture(autouse=True)
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every package is there, and no graph has functions."""
    monkeypatch.setattr(fused_kernels, "_is_there", lambda module: True)


def bundle(data: bytes = b"", **precisions: Precision) -> Any:
    """A bundle whose graphs have fused operators where the table says so, and are `data`."""
    records = {
        name: SimpleNamespace(
            operators=Operators.FUSED.of(component).value, precision=precisions.get(name, Precision.BF16)
        )
        for name, component in COMPONENTS.items()
    }
    graphs = {"graph": records.__getitem__, "read_graph": lambda name: SimpleNamespace(data=data)}
    return SimpleNamespace(components=tuple(records), **graphs)


def test_in_bf16_all_have_kernels(caplog: pytest.LogCaptureFixture):
    made = bundle()
    assert [name for name in COMPONENTS if has_kernels(made, name)] == ["vae_encoder", "denoiser", "vae_decoder"]
    assert fused_architecture(made, GPU) == f"sm_{GPU.major}{GPU.minor}"
    assert caplog.text == ""


def test_an_autoencoder_in_fp32_keeps_no_kernels_from_the_denoiser(caplog: pytest.LogCaptureFixture):
    made = bundle(vae_encoder=Precision.FP32, vae_decoder=Precision.FP32)
    assert fused_architecture(made, GPU) == f"sm_{GPU.major}{GPU.minor}"
    assert not has_kernels(made, "vae_decoder")
    assert caplog.text.count("fused operators run without their kernels") == 2
    assert "memory: vae_decoder is in fp32" in caplog.text


def test_without_kernels_nothing_is_compiled():
    everywhere = dict.fromkeys(COMPONENTS, Precision.FP16)
    assert fused_architecture(bundle(**everywhere), GPU) is None


def graph(version: int, change: str = "") -> bytes:
    """A graph of one fused operator, in a version of the domain."""
    definition = DEFINITIONS["Gate"]
    proto = onnx.ModelProto.FromString(model(definition, Precision.BF16, attributes(definition, Sizes())))
    if change:
        proto.functions[0].doc_string = change
    (domain,) = (one for one in proto.opset_import if one.domain == DOMAIN)
    domain.version = version
    return proto.SerializeToString()


def test_an_operator_of_another_version_says_to_export_again(caplog: pytest.LogCaptureFixture):
    assert fused_architecture(bundle(graph(VERSION + 1)), GPU) is not None, "its functions are what they are here"
    assert fused_architecture(bundle(graph(VERSION + 1, "another")), GPU) is None
    words = f"denoiser has version {VERSION + 1} of the operators Gate, and this is version {VERSION}: export the"
    assert words in caplog.text


def test_an_operator_of_somebody_elses_is_named(caplog: pytest.LogCaptureFixture):
    assert fused_architecture(bundle(graph(VERSION, "another")), GPU) is None
    assert "denoiser has functions that are not this project's: Gate" in caplog.text
