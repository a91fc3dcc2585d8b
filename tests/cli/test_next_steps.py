"""What is told to do next can be done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kontext_trt import Bundle
from kontext_trt.cli.next_steps import how_to_edit, how_to_run_quantized
from kontext_trt.cli.quantize import report_quantized
from kontext_trt.engine.components import Precision
from kontext_trt.export.graphs.recipes import make_recipe
from kontext_trt.runtime.executors import here

EDIT = "edit a picture with: kontext-trt edit {} --image IMAGE --prompt PROMPT"


@pytest.fixture(autouse=True)
def without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here, "find_gpus", lambda: ((), "none"))


def test_a_quantized_bundle_is_compiled_unless_its_operators_are_fused(
    fused_quantized: Callable[..., Bundle],
    tiny_quantized: Callable[[str], Bundle],
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = tiny_quantized("fp8")
    assert how_to_run_quantized(plain) == f'compile it with: kontext-trt build {plain.path} --gpu "rtx 5090"'
    for recipe in ("fp8", "fp8-attention"):
        fused = fused_quantized(recipe)
        assert how_to_run_quantized(fused) == EDIT.format(fused.path)
    report_quantized(fused, make_recipe("fp8-attention"), json=False)
    said = "".join(capsys.readouterr().err.split())
    assert said.endswith("".join(EDIT.format(fused.path).split()))
    assert "kontext-trtbuild" not in said


def test_a_machine_that_does_not_run_it_is_told(fused_path: Path) -> None:
    bundle = Bundle.open(fused_path)
    assert how_to_edit(bundle) == EDIT.format(fused_path)
    graphs = {name: replace(graph, precision=Precision.BF16) for name, graph in bundle.manifest.graphs.items()}
    other = replace(bundle, manifest=replace(bundle.manifest, graphs=graphs))
    assert how_to_edit(other) == f"on a machine that runs it, {EDIT.format(fused_path)}"
