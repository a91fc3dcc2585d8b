"""The tiny checkpoint as single files, one calibration and quantized bundles, made once per run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from once_per_run import OncePerRun
from PIL import Image

from kontext_trt import Bundle
from kontext_trt.engine.components import Precision

if TYPE_CHECKING:
    from kontext_trt.export.quantize.calibration import Calibration

MakePicture = Callable[..., Image.Image]
# torch and what needs it are imported where they are used: GPU tests also run where they are not installed


@pytest.fixture(scope="session")
def samples(once_per_run: OncePerRun, picture: MakePicture) -> Path:
    """An edit and a text to image."""

    def write(folder: Path) -> None:
        folder.mkdir()
        picture(150, 120).save(folder / "house.png")
        (folder / "instructions.txt").write_text("make the house blue\na red fox\n")

    return once_per_run.make("samples", write)


def calibrated(once_per_run: OncePerRun, name: str, bundle: Bundle, samples: Path, steps: int) -> Calibration:
    from kontext_trt.export.emulate.torch_device import TorchDevice
    from kontext_trt.export.quantize.calibrate import calibrate_bundle
    from kontext_trt.export.quantize.calibration import Calibration, CalibrationOptions

    options = CalibrationOptions(steps=steps, device=TorchDevice.CPU)
    return Calibration.open(once_per_run.make(name, lambda file: calibrate_bundle(bundle, samples, file, options)))


@pytest.fixture(scope="session")
def calibration(bundle_path: Path, samples: Path, once_per_run: OncePerRun) -> Calibration:
    """Of the tiny bundle in float32."""
    return calibrated(once_per_run, "calibration.json", Bundle.open(bundle_path), samples, steps=2)


@pytest.fixture(scope="session")
def tiny_quantized(bundle_path: Path, calibration: Calibration, once_per_run: OncePerRun) -> Callable[[str], Bundle]:
    """By recipe: the tiny float32 bundle, quantized. Not to be altered."""
    from kontext_trt.export.graphs.recipes import make_recipe
    from kontext_trt.export.quantize.quantize_bundle import quantize_bundle

    def bundle(recipe: str) -> Bundle:
        plain, chosen = Bundle.open(bundle_path), make_recipe(recipe)
        return Bundle.open(
            once_per_run.make(f"tiny-{recipe}", lambda path: quantize_bundle(plain, path, chosen, calibration))
        )

    return bundle


@pytest.fixture(scope="session")
def wide_calibration(wide_bundles: Callable[[Precision], Bundle], once_per_run: OncePerRun) -> Calibration:
    """Of the bf16 bundle with heads of 128, on one text to image.

    Its model is said to be trained at 128x128: torch decodes the 1024x1024 that it would choose for minutes, in bf16 on
    a CPU, and no range is the better for it.
    """

    def write_samples(folder: Path) -> None:
        folder.mkdir()
        (folder / "instructions.csv").write_text("picture,instruction\n,a red fox\n")

    samples, bundle = once_per_run.make("wide-samples", write_samples), wide_bundles(Precision.BF16)
    model = replace(bundle.manifest.model, sizes=((128, 128),))
    small = replace(bundle, manifest=replace(bundle.manifest, model=model))
    return calibrated(once_per_run, "wide-calibration.json", small, samples, steps=1)


@pytest.fixture(scope="session")
def wide_quantized(
    wide_bundles: Callable[[Precision], Bundle], wide_calibration: Calibration, once_per_run: OncePerRun
) -> Callable[..., Bundle]:
    """By recipe: the bf16 bundle with heads of 128, quantized. Not to be altered."""
    from kontext_trt.export.graphs.recipes import make_recipe
    from kontext_trt.export.quantize.quantize_bundle import quantize_bundle

    def bundle(recipe: str, *, t5: bool = False) -> Bundle:
        plain, chosen = wide_bundles(Precision.BF16), make_recipe(recipe, t5=t5)
        name = f"wide-{recipe}{'-t5' if t5 else ''}"
        return Bundle.open(once_per_run.make(name, lambda path: quantize_bundle(plain, path, chosen, wide_calibration)))

    return bundle


@pytest.fixture(scope="session")
def models_path(checkpoint_path: Path, once_per_run: OncePerRun) -> Path:
    """As ComfyUI has it. Not to be altered."""
    from single_files import write_models_folder

    return once_per_run.make("models", lambda path: write_models_folder(checkpoint_path, path))
