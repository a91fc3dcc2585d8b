"""Which components run kernels of fused operators, and what is said of those that do not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from simulated_tensorrt import GPU

from kontext_trt.engine.components import COMPONENTS, Operators, Precision
from kontext_trt.runtime.executors import fused_kernels
from kontext_trt.runtime.executors.fused_kernels import fused_architecture, has_kernels


@pytest.fixture(autouse=True)
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every package is there, and no graph has functions."""
    monkeypatch.setattr(fused_kernels, "_is_there", lambda module: True)


def bundle(**precisions: Precision) -> Any:
    """A bundle whose graphs have fused operators where the table says so."""
    records = {
        name: SimpleNamespace(
            operators=Operators.FUSED.of(component).value, precision=precisions.get(name, Precision.BF16)
        )
        for name, component in COMPONENTS.items()
    }
    graphs = {"graph": records.__getitem__, "read_graph": lambda name: SimpleNamespace(data=b"")}
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
