"""The LoRA that comes with the small Kontext: its style is seen, by every road, and in every precision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxKontextPipeline
from once_per_run import OncePerRun
from PIL import Image
from quantizing_fixtures import calibrated

from kontext_trt import Bundle, Kontext
from kontext_trt.benchmarks.quality.editbench.samples import EditSample, draw_sample
from kontext_trt.benchmarks.quality.editbench.scoring import decibels, squared_error
from kontext_trt.engine.components import Precision
from kontext_trt.examples.small_kontext.train_lora import RANK, blueprint
from kontext_trt.export.emulate.torch_device import TorchDevice
from kontext_trt.export.emulate.torch_executor import TorchExecutor
from kontext_trt.export.export import ExportOptions, export_bundle
from kontext_trt.export.fuse_lora import fuse_lora
from kontext_trt.export.graphs.recipes import make_recipe
from kontext_trt.export.quantize.quantize_bundle import quantize_bundle

SMALL = Path(__file__).parents[2] / "examples" / "small_kontext"
CHECKPOINT, LORA = SMALL / "checkpoint", SMALL / "blueprint.safetensors"
SIZE, STEPS = (128, 128), 4
EVERYWHERE = np.ones((128, 128), bool)

pytestmark = pytest.mark.check  # tracing the small model takes a minute


@pytest.fixture(scope="module")
def sample() -> EditSample:
    return draw_sample(31_002, held_out=True, task="add", size=SIZE)


@pytest.fixture(scope="module")
def branched(once_per_run: OncePerRun) -> Bundle:
    options = ExportOptions(lora_rank=RANK, precision=Precision.FP32)
    return Bundle.open(once_per_run.make("small-branched", lambda path: export_bundle(CHECKPOINT, path, options)))


@pytest.fixture(scope="module")
def swapped(branched: Bundle) -> Iterator[Kontext]:
    with Kontext.open(branched) as opened:
        yield opened


def edited(kontext: Kontext, sample: EditSample, **request) -> np.ndarray:
    """(128, 128, 3) uint8."""
    result = kontext.edit(sample.reference(), sample.instruction, seed=3, steps=STEPS, size=SIZE, **request)
    return np.asarray(result.image)


def near(made: np.ndarray, wanted: np.ndarray) -> float:
    return decibels(squared_error(made, wanted, EVERYWHERE))


def test_the_file_is_small():
    assert LORA.stat().st_size <= 200_000


def test_the_answer_is_drawn_as_a_blueprint(swapped: Kontext, sample: EditSample):
    drawn = blueprint(torch.from_numpy(sample.target())[None])[0].numpy()
    plain, styled = (edited(swapped, sample, loras=loras) for loras in ([], [LORA]))
    assert near(plain, sample.target()) > 25
    assert near(styled, drawn) > 17
    assert near(styled, drawn) > near(plain, drawn) + 6


def test_swapped_fused_and_diffusers_agree(branched: Bundle, swapped: Kontext, sample: EditSample, tmp_path: Path):
    made = edited(swapped, sample, loras=[LORA]).astype(int)
    with Kontext.open(fuse_lora(branched, tmp_path / "fused", [LORA])) as fused:
        assert np.abs(edited(fused, sample) - made).max() <= 1  # what rounding to 8 bits leaves
    pipeline = FluxKontextPipeline.from_pretrained(CHECKPOINT, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(LORA.parent, weight_name=LORA.name)
    theirs = pipeline(
        image=Image.fromarray(sample.reference()),
        prompt=sample.instruction,
        width=SIZE[0],
        height=SIZE[1],
        max_area=SIZE[0] * SIZE[1],
        num_inference_steps=STEPS,
        guidance_scale=2.5,
        max_sequence_length=pipeline.tokenizer_2.model_max_length,
        generator=torch.Generator("cpu").manual_seed(3),
        output_type="np",
        _auto_resize=False,
    ).images[0]
    assert np.abs(255 * theirs - made).max() < 1.01


@pytest.mark.parametrize(("recipe", "least_db"), [("fp8", 25), ("nvfp4-svd", 20)])
def test_it_works_in_quantized_bundles(
    branched: Bundle,
    swapped: Kontext,
    sample: EditSample,
    samples: Path,
    once_per_run: OncePerRun,
    tmp_path: Path,
    recipe: str,
    least_db: float,
):
    """Swapped, the weights being quantized without it, by our emulation."""
    wanted = edited(swapped, sample, loras=[LORA])
    calibration = calibrated(once_per_run, "small-calibration.json", branched, samples, steps=2)
    quantized = quantize_bundle(branched, tmp_path / recipe, make_recipe(recipe), calibration)
    with Kontext(quantized, TorchExecutor(quantized, TorchDevice.CPU)) as kontext:
        made = edited(kontext, sample, loras=[LORA])
        assert near(made, wanted) > least_db
        assert near(made, wanted) > near(edited(kontext, sample, loras=[]), wanted) + 6
