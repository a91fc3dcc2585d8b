"""Kernels of fused operators switched off family by family: what runs, what was predicted, and what fails."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from pathlib import Path

import msgspec
import pytest

from kontext_trt import Bundle, Device, OnnxRuntimeOptions
from kontext_trt.benchmarks.bench import ablation, fused_ablation
from kontext_trt.benchmarks.bench.ablation import ablate
from kontext_trt.benchmarks.bench.fused_ablation import FAMILIES, families_of, predicted_ms, without_kernels
from kontext_trt.benchmarks.bench.records import Case, Ceilings
from kontext_trt.benchmarks.bench.sections import sections
from kontext_trt.engine.errors import BundleError, ExecutorError
from kontext_trt.engine.system.gpus import Gpu
from kontext_trt.runtime.executors.open import open_executor
from kontext_trt.runtime.executors.options import ExecutorOptions
from kontext_trt.runtime.flow.executor import Executor
from kontext_trt.runtime.operators.catalogue import OPERATORS

CPU = OnnxRuntimeOptions(device=Device.CPU, threads=1)
CASE = Case(size=(64, 64), reference=None, steps=2, batch=1, seed=0, guidance=2.5, prompt="x")
CEILINGS = Ceilings(
    copy=1e12, products={"fp32": 1e13, "fp8": 4e13}, attention={"fp32": 5e12, "fp8": 1e13}, how="made up"
)
NORMS = FAMILIES["kernels: norm, modulation, gate"]


def test_every_operator_is_in_one_family():
    assert sorted(name for names in FAMILIES.values() for name in names) == sorted(OPERATORS)


def test_families_are_those_that_the_denoiser_has(bundle: Bundle, fused_path: Path):
    assert families_of(bundle) == {}
    assert families_of(Bundle.open(fused_path)).keys() == FAMILIES.keys() - {
        "kernels: rounding to FP8",
        "kernels: pictures",
    }


def test_each_family_has_a_row_and_a_failure_is_one(fused_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On the CPU bodies run anyway: the pictures are the same, and so is what is asked of the executor."""
    asked: list[AbstractSet[str]] = []

    def opened(
        bundle: Bundle, options: ExecutorOptions, *, without_kernels: AbstractSet[str] = frozenset()
    ) -> Executor:
        asked.append(without_kernels)
        if "Attend" in without_kernels:
            raise ExecutorError("no kernel for Attention")
        return open_executor(bundle, options)

    monkeypatch.setattr(ablation, "open_executor", opened)
    monkeypatch.setattr(ablation, "without_kernels", lambda bundle, executor, device_id: [])
    found = ablate(Bundle.open(fused_path), CPU, CASE, repeat=1, ceilings=CEILINGS)
    rows = {row.gain: row for row in found.rows if row.gain in FAMILIES}
    assert rows.keys() == families_of(Bundle.open(fused_path)).keys()
    assert [names for names in asked if names] == [FAMILIES[family] for family in rows]
    failed = rows.pop("kernels: attention")
    assert failed.failure == "no kernel for Attention"
    assert failed.predicted_ms is not None
    assert all(row.with_ms and row.without_ms and row.predicted_ms for row in rows.values())
    (section,) = sections([found])
    assert section.columns[-2:] == ("costs", "predicted")
    assert ("kernels: attention", "one step", "", "", "failed", f"{failed.predicted_ms:+.2f}") in section.rows
    assert "without kernels: attention: no kernel for Attention" in section.note


def test_where_bodies_run_there_are_no_rows(fused_path: Path):
    bundle = Bundle.open(fused_path)
    found = ablate(bundle, CPU, CASE, repeat=1)
    assert not {row.gain for row in found.rows} & FAMILIES.keys()
    assert found.notes == ("no rows for kernels: onnxruntime (cpu) runs the bodies of fused operators",)


def test_what_keeps_kernels_from_running_is_said(fused_path: Path, monkeypatch: pytest.MonkeyPatch):
    class OnDevice:
        name = "onnxruntime (cuda:0)"

    monkeypatch.setattr(fused_ablation, "DeviceExecutor", OnDevice)
    bundle, executor = Bundle.open(fused_path), OnDevice()
    monkeypatch.setattr(fused_ablation, "find_gpus", lambda: ((), "no driver"))
    assert list(without_kernels(bundle, executor, 0)) == ["no driver"]  # pyright: ignore[reportArgumentType]
    gpu = Gpu(index=0, name="H200", major=9, minor=0, memory_bytes=1)
    monkeypatch.setattr(fused_ablation, "find_gpus", lambda: ((gpu,), ""))
    reasons = list(without_kernels(bundle, executor, 0))  # pyright: ignore[reportArgumentType]
    assert any("denoiser is in fp32" in reason for reason in reasons)


def test_a_prediction_is_bytes_and_fp8_at_the_slower_rate(
    fused_path: Path, fused_quantized: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
):
    bundle = Bundle.open(fused_path)
    once = predicted_ms(bundle, CASE, NORMS, CEILINGS)
    assert once is not None
    slow = msgspec.structs.replace(CEILINGS, copy=0.5e12)
    assert predicted_ms(bundle, CASE, NORMS, slow) == pytest.approx(2 * once)
    assert predicted_ms(bundle, CASE, NORMS, None) is None
    products = FAMILIES["kernels: products with bias, GELU, FP8"]
    quantized = fused_quantized("fp8")
    equal = msgspec.structs.replace(CEILINGS, products={"fp32": 4e13, "fp8": 4e13})
    slower, as_fast = (predicted_ms(quantized, CASE, products, one) for one in (CEILINGS, equal))
    assert slower is not None
    assert as_fast is not None
    assert slower > as_fast > 0
    lacking = msgspec.structs.replace(CEILINGS, products={"fp32": 1e13})
    assert predicted_ms(quantized, CASE, products, lacking) is None

    def unknown(*_: object) -> float:
        raise BundleError("its shapes cannot be told")

    monkeypatch.setattr(ablation, "predicted_ms", unknown)
    monkeypatch.setattr(ablation, "without_kernels", lambda *_: [])
    monkeypatch.setattr(ablation, "families_of", lambda _: {"norms": NORMS})
    found = ablate(bundle, CPU, CASE, repeat=1, ceilings=CEILINGS)
    assert found.rows[-1].without_ms is not None
    assert found.notes == ("nothing is predicted for norms: its shapes cannot be told",)
