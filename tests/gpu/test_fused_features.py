"""All that a request can ask for, by fused operators on a GPU beside the CPU in float32: the small trained model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lora_pictures import random_pairs, write_lora
from on_gpu import psnr

from kontext_trt import Bundle, Device, Kontext, OnnxRuntimeOptions, Previews
from kontext_trt.benchmarks.quality.editbench.samples import draw_sample
from kontext_trt.engine.components import COMPONENTS, Operators, Precision
from kontext_trt.engine.system.gpus import find_gpus
from kontext_trt.runtime.device.residency import Residency

pytestmark = pytest.mark.gpu
CHECKPOINT = Path(__file__).parents[2] / "examples/small_kontext/checkpoint"
ALIKE_DB = 30
SEED, STEPS = 7, 8
Pictures = list[np.ndarray]
Feature = Callable[[Kontext, Path], Pictures]


def reference(size: tuple[int, int] = (128, 128), seed: int = 70_000) -> np.ndarray:
    drawn = draw_sample(seed, held_out=True, task="recolour", size=size).reference()
    assert drawn is not None
    return drawn


def edited(kontext: Kontext, *images: np.ndarray, **keywords: Any) -> Pictures:
    prompt = keywords.pop("prompt", "turn the circle red")
    result = kontext.edit(list(images or (reference(),)), prompt, **{"seed": SEED, "steps": STEPS} | keywords)
    return [np.asarray(output.image) for output in result.outputs]


def generated(kontext: Kontext, lora: Path) -> Pictures:
    prompt = "on a white background, a large red circle in the middle"  # of other words FP8 alone makes another picture
    result = kontext.generate(prompt, seed=SEED, steps=STEPS, size=(128, 128))
    return [np.asarray(output.image) for output in result.outputs]


def session(kontext: Kontext, lora: Path) -> Pictures:
    with kontext.session(reference()) as turns:
        results = [turns.edit(f"turn the circle {colour}", seed=SEED, steps=STEPS) for colour in ("red", "blue")]
    return [np.asarray(result.image) for result in results]


def previewed(kontext: Kontext, lora: Path) -> Pictures:
    seen: Pictures = []
    previews = Previews(count=2, show=lambda _, pictures: seen.extend(map(np.asarray, pictures)))
    return [*edited(kontext, previews=previews), *seen]


def swapped(kontext: Kontext, lora: Path) -> Pictures:
    pictures = edited(kontext, loras=[(lora, 0.7)])
    return [*pictures, *edited(kontext)]


def with_keywords(**keywords: Any) -> Feature:
    return lambda kontext, lora: edited(kontext, **keywords)


FEATURES: dict[str, Feature] = {
    "edit": with_keywords(),
    "generate": generated,
    "four pictures": with_keywords(prompt=["turn the circle red", "remove the circle"], seed=[1, 2]),
    "two references": lambda kontext, lora: edited(kontext, reference(), reference((96, 64), 70_001)),
    "session": session,
    "previews": previewed,
    "mask": with_keywords(mask=(16, 16, 80, 80), feather=4),
    "swapped LoRA": swapped,
    "ab2": with_keywords(solver="ab2"),
    "cached steps": with_keywords(step_mask=[1, 1, 0, 1, 0, 1, 0, 1]),
    "strength": with_keywords(strength=0.6),
    "guidance": with_keywords(guidance=5.0),
    **{f"{width}x{height}": with_keywords(size=(width, height)) for width, height in ((112, 176), (208, 48), (48, 16))},
}
"""The sizes have latent pixels that are no multiple of 8: 308, 156 and 12."""


class Bundles:
    """Makes the small model in fused operators, with branches and cached steps, when a precision is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.lora = write_lora(folder / "lora.safetensors", random_pairs(Bundle.open(self.plain(Precision.FP32)), 4, 3))

    def plain(self, precision: Precision) -> Path:
        from kontext_trt.export.checkpoint import open_checkpoint
        from kontext_trt.export.export import ExportOptions, export_bundle

        path = self._folder / precision.value
        if not path.exists():
            options = ExportOptions(precision=precision, operators=Operators.FUSED, lora_rank=4, step_cache=True)
            export_bundle(open_checkpoint(CHECKPOINT), path, options)
        return path

    def get(self, precision: Precision, recipe: str) -> Path:
        from kontext_trt.export.graphs.recipes import make_recipe
        from kontext_trt.export.quantize.calibration import Calibration
        from kontext_trt.export.quantize.quantize_bundle import quantize_bundle

        path = self._folder / f"{precision.value}-{recipe}"
        if not recipe:
            return self.plain(precision)
        if not path.exists():
            calibration = Calibration.open(self._calibration())
            quantize_bundle(self.plain(precision), path, make_recipe(recipe), calibration)
        return path

    def _calibration(self) -> Path:
        given = Path(os.environ.get("KONTEXT_TRT_TEST_BUNDLES", self._folder)) / "small-calibration.json"
        if given.exists():
            return given
        from kontext_trt.examples.small_kontext.calibration import write_samples
        from kontext_trt.export.quantize.calibrate import calibrate_bundle
        from kontext_trt.export.quantize.calibration import CalibrationOptions

        file, samples = self._folder / "calibration.json", self._folder / "samples"
        if not file.exists():
            write_samples(samples, 6)
            calibrate_bundle(Bundle.open(self.plain(Precision.FP32)), samples, file, CalibrationOptions(steps=4))
        return file


def require_kernels(devices: int = 1) -> None:
    for package in ("onnxruntime", "nvmath", "nccl")[: 1 + devices]:
        pytest.importorskip(package)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    return Bundles(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def cpu(bundles: Bundles, request: pytest.FixtureRequest) -> Iterator[Kontext]:
    """By recipe: the bodies of the operators, in float32."""
    require_kernels()
    path = bundles.get(Precision.FP32, request.param[0])
    with Kontext.open(path, executor=OnnxRuntimeOptions(device=Device.CPU)) as kontext:
        yield kontext


@pytest.fixture(scope="module")
def gpu(bundles: Bundles, request: pytest.FixtureRequest) -> Iterator[Kontext]:
    """By recipe and number of devices: the kernels."""
    recipe, devices = request.param
    require_kernels(devices)
    found = find_gpus()[0]
    if len(found) < devices:
        pytest.skip(f"needs {devices} GPUs")
    if recipe and (found[0].major, found[0].minor) < (9, 0):
        pytest.skip("FP8 attention needs sm_90")
    path = bundles.get(Precision.BF16, recipe)
    with Kontext.open(path, executor="cuda", devices=devices if devices > 1 else None) as kontext:
        yield kontext


WAYS = [(recipe, devices) for devices in (1, 2) for recipe in ("", "fp8-attention")]


@pytest.mark.parametrize(("cpu", "gpu"), [(way, way) for way in WAYS], indirect=True)
@pytest.mark.parametrize("name", FEATURES)
def test_the_gpu_makes_the_cpus_picture(
    name: str, cpu: Kontext, gpu: Kontext, bundles: Bundles, request: pytest.FixtureRequest
) -> None:
    expected = FEATURES[name](cpu, bundles.lora)
    first, *again = [FEATURES[name](gpu, bundles.lora) for _ in range(3)]  # enqueued, recorded, replayed
    likeness = [psnr(ours, theirs) for ours, theirs in zip(first, expected, strict=True)]
    print(f"\nFEATURE {request.node.name}: {', '.join(f'{one:.1f}' for one in likeness)} dB")
    assert min(likeness) > ALIKE_DB
    for pictures in again:
        for ours, theirs in zip(pictures, first, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("turns", [("vae_encoder", "vae_decoder"), tuple(COMPONENTS)], ids=["autoencoder", "all"])
@pytest.mark.parametrize("recipe", ["", "fp8-attention"])
def test_networks_that_are_loaded_for_their_turn_make_the_same_picture(
    recipe: str, turns: tuple[str, ...], bundles: Bundles
) -> None:
    require_kernels()
    path = bundles.get(Precision.BF16, recipe)
    with Kontext.open(path, executor="cuda") as everything, Kontext.open(path, executor="cuda") as kontext:
        residencies = kontext.executor.residency.residencies
        for name in turns:
            assert name in residencies
            residencies[name] = Residency.TURN
        for feature in ("edit", "four pictures", "edit", "swapped LoRA"):
            one, two = (FEATURES[feature](opened, bundles.lora) for opened in (everything, kontext))
            for ours, theirs in zip(one, two, strict=True):
                np.testing.assert_array_equal(ours, theirs)
