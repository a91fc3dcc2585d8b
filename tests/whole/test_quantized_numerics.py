"""What quantized denoisers compute: ONNX Runtime, our emulation and ModelOpt's fake quantization agree, and all of
them stay as near to the unquantized model as the formats allow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from plain_steps import plain_step
from probes import Outputs, ort_block_outputs, torch_block_outputs
from torch import Tensor

from kontext_trt import Bundle
from kontext_trt.benchmarks.quality.metrics import sqnr_db
from kontext_trt.engine.components import COMPONENTS
from kontext_trt.export.emulate.torch_device import TorchDevice
from kontext_trt.export.emulate.torch_executor import TorchExecutor
from kontext_trt.export.graphs.formats import FP8_MAX, fp8_scale
from kontext_trt.export.graphs.recipes import make_recipe
from kontext_trt.export.quantize.calibration import Calibration
from kontext_trt.export.quantize.observer import FP8_CONFIG, place_quantizers, quantizers
from kontext_trt.runtime.flow.rope import rope_tables

Quantized = Callable[[str], Bundle]


@pytest.fixture(scope="module")
def step(bundle_path) -> dict[str, Tensor]:
    """Inputs of one step of an edit, as the conditioner of the unquantized bundle gives them."""
    bundle = Bundle.open(bundle_path)
    draw = np.random.default_rng(0)
    target, reference = (4, 6), (5, 3)
    text, pooled = draw.standard_normal((1, 512, 64)), draw.standard_normal((1, 64))
    latents, packed = (draw.standard_normal((1, h * w, 64)) for h, w in (target, reference))
    model = bundle.manifest.model
    references = () if reference is None else (reference,)
    cos, sin = rope_tables(512, target, references, model.rope_axes, model.rope_theta)
    given = {"timesteps": [0.7], "guidance": [2.5], "pooled": pooled, "text": text, "reference": packed}
    executor = TorchExecutor(bundle, TorchDevice.CPU)
    conditioned = executor.run("conditioner", {name: np.asarray(value, np.float32) for name, value in given.items()})
    values = {
        "latents": latents.astype(np.float32),
        "text_tokens": conditioned["text_tokens"],
        "reference_tokens": conditioned["reference_tokens"],
        "modulation": conditioned["modulation"][0],
        "cos": cos,
        "sin": sin,
        "step_size": np.array([-0.1], np.float32),
        **plain_step(latents),
    }
    return {port.name: torch.tensor(np.asarray(values[port.name])) for port in COMPONENTS["denoiser"].inputs}


@pytest.fixture(scope="module")
def plain(bundle_path, step) -> Outputs:
    return torch_block_outputs(TorchExecutor(Bundle.open(bundle_path), TorchDevice.CPU).module("denoiser"), step)


def emulated(bundle: Bundle, step: dict[str, Tensor]) -> Outputs:
    return torch_block_outputs(TorchExecutor(bundle, TorchDevice.CPU).module("denoiser"), step)


def sqnrs(reference: Outputs, other: Outputs) -> dict[tuple[str, str], float]:
    assert reference.keys() == other.keys()
    assert len(reference) == 2 * 2 + 2
    return {key: sqnr_db(value, other[key]) for key, value in reference.items()}


@pytest.mark.parametrize("recipe", ["fp8", "fp8-attention"])
def test_onnx_runtime_and_emulation_agree(tiny_quantized: Quantized, recipe: str, step, plain) -> None:
    """They round the same values; where a sum's last bit differs, a value next to the middle of two falls the other
    way, and that shows as noise."""
    bundle = tiny_quantized(recipe)
    agreement = sqnrs(emulated(bundle, step), ort_block_outputs(bundle, step))
    assert min(agreement.values()) >= 35, agreement


def test_emulation_is_modelopts_fake_quantization(
    bundle: Bundle, tiny_quantized: Quantized, calibration: Calibration, step
) -> None:
    """ModelOpt's own FP8, weights an output channel, activations a tensor, with the ranges that were calibrated."""
    denoiser = TorchExecutor(bundle, TorchDevice.CPU).module("denoiser")
    ranges = calibration.ranges()

    def forward(module: torch.nn.Module) -> None:
        with torch.no_grad():
            module(*step.values())

    place_quantizers(denoiser, make_recipe("fp8"), FP8_CONFIG, forward, weights={"num_bits": (4, 3), "axis": 0})
    for name, quantizer in quantizers(denoiser):
        if name in ranges:
            quantizer.amax = fp8_scale(torch.tensor(ranges[name]), torch.float32) * FP8_MAX
    theirs = torch_block_outputs(denoiser, step)
    bundle = tiny_quantized("fp8")
    for what, ours in (("emulation", emulated(bundle, step)), ("ONNX Runtime", ort_block_outputs(bundle, step))):
        agreement = sqnrs(theirs, ours)
        assert min(agreement.values()) >= 35, (what, agreement)


BOUNDS_DB = {"fp8": 34.0, "fp8-attention": 34.0, "nvfp4": 22.0, "nvfp4-svd": 22.0}
"""E4M3 rounds with a relative error of at most 1/16, uniform over a binade: about 31.5 dB for a tensor.
A product of two such has 28.5 dB, and in a block it is added, gated, to a residual that is at least as large and exact,
which gives 6 dB or more of it back. NVFP4 has 2 significant bits, not 4: 12 dB less."""


@pytest.mark.parametrize("recipe", BOUNDS_DB)
def test_blocks_stay_near_the_unquantized_model(tiny_quantized: Quantized, recipe: str, step, plain) -> None:
    errors = sqnrs(plain, emulated(tiny_quantized(recipe), step))
    assert min(errors.values()) >= BOUNDS_DB[recipe], errors
    assert max(errors.values()) < 90, "something was quantized"


def test_attention_and_branch_do_something(tiny_quantized: Quantized, step, plain) -> None:
    one, other = (emulated(tiny_quantized(recipe), step) for recipe in ("fp8", "fp8-attention"))
    assert min(sqnrs(one, other).values()) < 80
    plainly, branched = (sqnrs(plain, emulated(tiny_quantized(recipe), step)) for recipe in ("nvfp4", "nvfp4-svd"))
    assert sum(branched.values()) > sum(plainly.values()) + len(plainly), "the branch is worth more than 1 dB"
