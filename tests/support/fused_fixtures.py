"""Bundles of the tiny checkpoint in fused operators, made once per run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from once_per_run import OncePerRun

from kontext_trt import Bundle
from kontext_trt.engine.components import Precision

if TYPE_CHECKING:
    from kontext_trt.export.quantize.calibration import Calibration


@pytest.fixture(scope="session")
def fused_path(checkpoint_path: Path, once_per_run: OncePerRun) -> Path:
    """The tiny checkpoint in float32, its denoiser in fused operators. Not to be altered."""
    from kontext_trt.engine.components import Operators
    from kontext_trt.export.checkpoint import open_checkpoint
    from kontext_trt.export.export import ExportOptions, export_bundle

    options = ExportOptions(operators=Operators.FUSED, copy=True)
    return once_per_run.make("fused", lambda path: export_bundle(open_checkpoint(checkpoint_path), path, options))


@pytest.fixture(scope="session")
def fused_quantized(fused_path: Path, calibration: Calibration, once_per_run: OncePerRun) -> Callable[..., Bundle]:
    """By recipe, and layers to keep: the fused bundle, quantized. Not to be altered."""
    from kontext_trt.export.graphs.recipes import make_recipe
    from kontext_trt.export.quantize.quantize_bundle import quantize_bundle

    def bundle(recipe: str, *keep: str, t5: bool = False) -> Bundle:
        plain, chosen = Bundle.open(fused_path), make_recipe(recipe, keep=keep, t5=t5)
        name = f"fused-{recipe}-{len(keep)}{'-t5' if t5 else ''}"
        return Bundle.open(once_per_run.make(name, lambda path: quantize_bundle(plain, path, chosen, calibration)))

    return bundle


@pytest.fixture(scope="session")
def caching(checkpoint_path: Path, once_per_run: OncePerRun) -> Callable[..., Bundle]:
    """By name: the tiny checkpoint's bundle whose steps can be cached. Not to be altered."""

    def bundle(name: str = "plain", **options: Any) -> Bundle:
        from kontext_trt.export.checkpoint import open_checkpoint
        from kontext_trt.export.export import ExportOptions, export_bundle

        chosen = ExportOptions(step_cache=True, copy=True, **options)
        made = once_per_run.make(
            f"caching-{name}", lambda path: export_bundle(open_checkpoint(checkpoint_path), path, chosen)
        )
        return Bundle.open(made)

    return bundle


@pytest.fixture(scope="session")
def small_fused(once_per_run: OncePerRun) -> Path:
    """The small Kontext, of six heads, in float32 and fused operators. Not to be altered."""
    from kontext_trt.engine.components import Operators
    from kontext_trt.export.checkpoint import open_checkpoint
    from kontext_trt.export.export import ExportOptions, export_bundle

    checkpoint = Path(__file__).parents[2] / "examples/small_kontext/checkpoint"
    options = ExportOptions(operators=Operators.FUSED, precision=Precision.FP32, copy=True)
    return once_per_run.make("small-fused", lambda path: export_bundle(open_checkpoint(checkpoint), path, options))
