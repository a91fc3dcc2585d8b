"""Plans of bundles with branches: TensorRT-RTX compiles them as asked, and does not copy weights to what is swapped."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from building import Site
from compiler_fixtures import COVERAGE
from once_per_run import OncePerRun

from kontext_trt import Bundle
from kontext_trt.engine.components import Precision
from kontext_trt.engine.plans.profiles import ShapeRange
from kontext_trt.engine.plans.targets import Target
from kontext_trt.export.graphs.recipes import make_recipe
from kontext_trt.export.quantize.quantize_bundle import quantize_bundle


def test_a_conditioner_takes_its_matrices_in_one_shape(
    branched_bundle: Callable[..., Bundle], ada: Target, tmp_path: Path
):
    bundle = Bundle.open(shutil.copytree(branched_bundle().path, tmp_path / "bundle"))
    built = Site(bundle, ada).build("conditioner", COVERAGE)
    profile = built.manifest.ingredients.profile
    assert bundle.manifest.branches is not None
    for packed in bundle.manifest.branches.packed("conditioner"):
        assert profile[packed.name] == ShapeRange(min=packed.shape, opt=packed.shape, max=packed.shape)
    assert built.manifest.census.gemms.keys() == {"fp32"}
    assert built.manifest.ingredients.options.max_aux_streams == 0


@pytest.fixture(scope="module")
def wide_branched(wide_checkpoint: Path, once_per_run: OncePerRun, traced_once: None) -> Bundle:
    """The checkpoint with heads of 128 in bf16, with branches of rank 16."""
    from kontext_trt.export.export import ExportOptions, export_bundle

    options = ExportOptions(precision=Precision.BF16, lora_rank=16)
    return Bundle.open(once_per_run.make("wide-branched", lambda path: export_bundle(wide_checkpoint, path, options)))


@pytest.mark.check  # two denoisers are compiled
def test_a_denoiser_does_not_copy_its_weights(
    wide_branched: Bundle, wide_bundles: Callable[[Precision], Bundle], ada: Target
):
    """Where a product of weights and one of a matrix that is an input read the same, the compiler makes one of both."""
    plain = Site(wide_bundles(Precision.BF16), ada).build("denoiser", COVERAGE).manifest.census
    branched = Site(wide_branched, ada).build("denoiser", COVERAGE).manifest.census
    assert branched.gemms.keys() == {"bf16"}
    assert branched.weight_bytes < plain.weight_bytes * 1.01
    assert branched.activation_bytes - plain.activation_bytes < plain.weight_bytes / 2
    assert sum(branched.attention.values()) == branched.attention_asked


@pytest.mark.check  # a denoiser is compiled
def test_an_fp8_denoiser_multiplies_in_fp8_beside_its_branches(
    wide_branched: Bundle, wide_calibration, ada: Target, tmp_path: Path
):
    quantized = quantize_bundle(wide_branched, tmp_path / "fp8", make_recipe("fp8"), wide_calibration)
    census = Site(quantized, ada).build("denoiser", COVERAGE).manifest.census
    assert census.products_asked["fp8"] > 0
    assert census.strays == ()
