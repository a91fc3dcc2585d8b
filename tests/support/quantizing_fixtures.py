"""The tiny checkpoint as single files, one calibration and quantized bundles, made once for the whole run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from single_files import write_models_folder

from kontext_trt import Bundle
from kontext_trt.engine.components import Precision
from kontext_trt.export.emulate.torch_device import TorchDevice
from kontext_trt.export.graphs.recipes import make_recipe
from kontext_trt.export.quantize.calibrate import CalibrationOptions, calibrate_bundle
from kontext_trt.export.quantize.calibration import Calibration
from kontext_trt.export.quantize.quantize_bundle import quantize_bundle

MakePicture = Callable[..., Image.Image]
QUICK = CalibrationOptions(steps=2, device=TorchDevice.CPU)


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory, picture: MakePicture) -> Path:
    """An edit and a text to image."""
    folder = tmp_path_factory.mktemp("samples")
    picture(150, 120).save(folder / "house.png")
    (folder / "instructions.txt").write_text("make the house blue\na red fox\n")
    return folder


@pytest.fixture(scope="session")
def calibration(bundle_path: Path, samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    """Of the tiny bundle in float32."""
    artefact = tmp_path_factory.mktemp("calibration") / "tiny.json"
    return calibrate_bundle(Bundle.open(bundle_path), samples, artefact, QUICK)


@pytest.fixture(scope="session")
def tiny_quantized(
    bundle_path: Path, calibration: Calibration, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Bundle]:
    """By recipe: the tiny float32 bundle, quantized. Not to be altered."""
    folder, made = tmp_path_factory.mktemp("tiny-quantized"), {}

    def bundle(recipe: str) -> Bundle:
        if recipe not in made:
            chosen = make_recipe(recipe)
            made[recipe] = quantize_bundle(Bundle.open(bundle_path), folder / recipe, chosen, calibration)
        return made[recipe]

    return bundle


@pytest.fixture(scope="session")
def wide_calibration(
    wide_bundles: Callable[[Precision], Bundle], tmp_path_factory: pytest.TempPathFactory
) -> Calibration:
    """Of the bf16 bundle with heads of 128, on one text to image."""
    folder = tmp_path_factory.mktemp("wide-calibration")
    (folder / "samples").mkdir()
    (folder / "samples/instructions.csv").write_text("picture,instruction\n,a red fox\n")
    bundle, options = wide_bundles(Precision.BF16), CalibrationOptions(steps=1, device=TorchDevice.CPU)
    return calibrate_bundle(bundle, folder / "samples", folder / "wide.json", options)


@pytest.fixture(scope="session")
def wide_quantized(
    wide_bundles: Callable[[Precision], Bundle],
    wide_calibration: Calibration,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Bundle]:
    """By recipe: the bf16 bundle with heads of 128, quantized. Not to be altered."""
    folder, made = tmp_path_factory.mktemp("wide-quantized"), {}

    def bundle(recipe: str, *, t5: bool = False) -> Bundle:
        if (recipe, t5) not in made:
            chosen = make_recipe(recipe, t5=t5)
            path = folder / f"{recipe}-{t5}"
            made[recipe, t5] = quantize_bundle(wide_bundles(Precision.BF16), path, chosen, wide_calibration)
        return made[recipe, t5]

    return bundle


@pytest.fixture(scope="session")
def models_path(checkpoint_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ComfyUI has it. Not to be altered."""
    path = tmp_path_factory.mktemp("comfy") / "models"
    write_models_folder(checkpoint_path, path)
    return path
