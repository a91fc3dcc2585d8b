"""What an export says before it traces, on a machine that will not run what comes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kontext_trt import Bundle
from kontext_trt.engine.components import Precision
from kontext_trt.engine.errors import ExportError
from kontext_trt.export import export, export_quantized, machine
from kontext_trt.export.checkpoint import open_checkpoint
from kontext_trt.export.graphs.recipes import make_recipe
from kontext_trt.export.machine import why_bundle_not_here
from kontext_trt.export.options import ExportOptions

REASON = "ONNX Runtime has no bf16 kernels on the CPU; export with --precision fp32"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The number types that were asked about, on a machine without bf16; nothing is traced."""
    found: list[set[str]] = []

    def why_not(formats: set[str]) -> str:
        found.append(set(formats))
        return REASON if "bf16" in formats else ""

    def traced(*_: object) -> None:
        raise ExportError("it would trace now")

    monkeypatch.setattr(machine, "why_not_here", why_not)
    monkeypatch.setattr(export, "trace", traced)
    return found


def test_it_warns_before_it_traces(
    checkpoint_path: Path, tmp_path: Path, asked: list[set[str]], caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = open_checkpoint(checkpoint_path)
    with pytest.raises(ExportError, match="it would trace now"):
        export.export_bundle(checkpoint, tmp_path / "bundle", ExportOptions(precision=Precision.BF16))
    assert caplog.messages == [f"this machine will not run the bundle: {REASON}"]
    with pytest.raises(ExportError, match="it would trace now"):
        export.export_bundle(checkpoint, tmp_path / "bundle")
    assert len(caplog.messages) == 1, "in float32, as it is stored, it runs"
    assert asked == [{"bf16"}, {"fp32"}]


def test_a_recipe_adds_what_it_multiplies_in(
    checkpoint_path: Path, tmp_path: Path, asked: list[set[str]], samples: Path
) -> None:
    recipe, options = make_recipe("nvfp4"), ExportOptions(precision=Precision.BF16)
    with pytest.raises(ExportError, match="it would trace now"):
        export_quantized.export_quantized(checkpoint_path, tmp_path / "bundle", recipe, options, calibration=samples)
    assert asked == [{"bf16", "nvfp4"}], "once, of what comes of it in the end"
    assert make_recipe("fp8-attention").formats == make_recipe("fp8").formats == ("fp8",)


def test_a_bundle_is_asked_about_too(bundle: Bundle, asked: list[set[str]]) -> None:
    assert why_bundle_not_here(bundle) == ""
    assert asked == [{"fp32"}]
