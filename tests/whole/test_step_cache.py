"""Cached steps: against diffusers' own blocks, in recorded graphs, in every form of bundle, and refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from building import build_ahead
from PIL import Image
from plain_flow import encoded
from quick_calibration import QUICK
from simulated_tensorrt import add_plans
from simulation import COVERAGE
from typer.testing import CliRunner

from kontext_trt import (
    Bundle,
    BundleError,
    Kontext,
    LoraChoice,
    RequestError,
    Result,
    Sampling,
    make_recipe,
    quantize_bundle,
)
from kontext_trt.cli.app import app
from kontext_trt.engine.bundle.bundle import MANIFEST
from kontext_trt.engine.bundle.manifest import FlowRecord
from kontext_trt.engine.components import Operators, Precision
from kontext_trt.export.emulate.torch_device import TorchDevice
from kontext_trt.export.emulate.torch_executor import TorchExecutor
from kontext_trt.runtime.flow.rope import position_ids
from kontext_trt.runtime.flow.schedule import noise_levels
from kontext_trt.runtime.flow.tensors import request_tensors, usual_shape

SIZE = (96, 192)
GRID = (12, 6)
HALF = (1, 0, 1, 0)


@pytest.fixture(scope="module")
def cached_kontext(caching: Callable[..., Bundle]) -> Any:
    with Kontext.open(caching()) as opened:
        yield opened


@pytest.fixture(scope="module")
def image(picture: Callable) -> Image.Image:
    return picture(*SIZE)


def latents(result: Result) -> np.ndarray:
    return np.stack([output.latents for output in result.outputs])


def by_diffusers(pipeline: Any, image: Image.Image, noise: np.ndarray, mask: tuple[int, ...]) -> np.ndarray:
    """The flow over diffusers' transformer, whose last stream is replaced in cached steps: what goes into its final
    layer is then this step's first block's output, and what the other blocks added in the last whole step."""
    text, pooled, text_ids = pipeline.encode_prompt(prompt=["x"], prompt_2=None, max_sequence_length=512)
    reference, x = encoded(pipeline, image), torch.from_numpy(noise)
    ids = torch.from_numpy(position_ids(0, GRID, (GRID,))).float()
    seen: dict[str, torch.Tensor] = {}
    whole = True

    def after_first(_module: Any, _inputs: Any, outputs: tuple[torch.Tensor, torch.Tensor]) -> None:
        seen["first"] = outputs[1]

    def before_last(_module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        if whole:
            seen["residual"] = inputs[0] - seen["first"]
        return (seen["first"] + seen["residual"], *inputs[1:])

    network = pipeline.transformer
    handles = [
        network.transformer_blocks[0].register_forward_hook(after_first),
        network.norm_out.register_forward_pre_hook(before_last),
    ]
    with torch.no_grad():
        for (now, after), kept in zip(
            pairwise(noise_levels(len(mask), noise.shape[1], FlowRecord()).tolist()), mask, strict=True
        ):
            whole = bool(kept)
            velocity = network(
                hidden_states=torch.cat([x, reference], dim=1),
                timestep=torch.tensor([now]),
                guidance=torch.tensor([2.5]),
                pooled_projections=pooled,
                encoder_hidden_states=text,
                txt_ids=text_ids,
                img_ids=ids,
            ).sample[:, : noise.shape[1]]
            x = x + (after - now) * velocity
    for handle in handles:
        handle.remove()
    return x.numpy()


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, 72, 64)).astype(np.float32)


@pytest.mark.parametrize("mask", [(1, 0), HALF])
def test_cached_steps_are_diffusers_blocks_with_the_rest_kept(
    cached_kontext: Kontext, pipeline: Any, image: Image.Image, noise: np.ndarray, mask: tuple[int, ...]
) -> None:
    found = cached_kontext.edit(image, "x", noise=noise, steps=len(mask), guidance=2.5, step_mask=mask)
    expected = by_diffusers(pipeline, image, noise, mask)
    np.testing.assert_allclose(latents(found), expected, atol=1e-5)
    whole = cached_kontext.edit(image, "x", noise=noise, steps=len(mask), guidance=2.5)
    assert np.abs(latents(whole) - expected).max() > 1e-3


def test_whole_steps_alone_give_the_picture_of_a_bundle_without_bit_for_bit(
    cached_kontext: Kontext, kontext: Kontext, image: Image.Image
) -> None:
    today = latents(kontext.edit(image, "x", seed=1, steps=3))
    np.testing.assert_array_equal(latents(cached_kontext.edit(image, "x", seed=1, steps=3)), today)
    ones = {"seed": 1, "steps": 3, "step_mask": [1, 1, 1]}
    np.testing.assert_array_equal(latents(cached_kontext.edit(image, "x", **ones)), today)
    np.testing.assert_array_equal(latents(kontext.edit(image, "x", **ones)), today)


def test_the_recorded_graph_of_half_a_mask_has_half_the_whole_steps(
    caching: Callable[..., Bundle], cached_kontext: Kontext, simulate: Callable, image: Image.Image, tmp_path: Path
) -> None:
    planned = Bundle.open(shutil.copytree(caching().path, tmp_path / "planned"))
    add_plans(planned, COVERAGE)
    simulation = simulate(bundle=planned)
    asked = {"seed": 1, "steps": 4, "step_mask": HALF, "solver": "ab2"}
    expected = latents(cached_kontext.edit(image, "x", **asked))
    for launches in range(3):
        np.testing.assert_array_equal(latents(simulation.kontext.edit(image, "x", **asked)), expected)
        assert simulation.cuda.calls["launch"] == launches
    replayed = simulation.library.executions[-6:]
    assert replayed == ["conditioner", *["denoiser", "cached_denoiser"] * 2, "vae_decoder"]
    (watched,) = [latents(simulation.kontext.edit(image, "x", **asked, on_step=lambda *_: None))]
    np.testing.assert_array_equal(watched, expected)


def test_batches_masks_and_several_references_go_along(
    cached_kontext: Kontext, image: Image.Image, picture: Callable
) -> None:
    mask = np.zeros(SIZE[::-1], bool)
    mask[:96] = True
    asked: dict[str, Any] = {"steps": 4, "step_mask": HALF, "mask": mask}
    references = [image, picture(128, 128, seed=2)]
    both = latents(cached_kontext.edit(references, "x", seed=[1, 2], **asked))
    for seed, found in zip((1, 2), both, strict=True):
        alone = latents(cached_kontext.edit(references, "x", seed=seed, **asked))
        np.testing.assert_allclose(found, alone[0], atol=2e-5)
    checked = cached_kontext.edit(references, "x", seed=[1, 2], debug_nan=True, **asked)
    np.testing.assert_array_equal(latents(checked), both)


def test_torch_computes_the_same(caching: Callable[..., Bundle], cached_kontext: Kontext, image: Image.Image) -> None:
    asked = {"seed": 1, "steps": 2, "step_mask": (1, 0)}
    bundle = caching()
    with Kontext(bundle, TorchExecutor(bundle, TorchDevice.CPU)) as emulated:
        found = latents(emulated.edit(image, "x", **asked))
    np.testing.assert_allclose(found, latents(cached_kontext.edit(image, "x", **asked)), atol=1e-5)


def test_what_a_picture_says_has_the_mask(cached_kontext: Kontext, image: Image.Image) -> None:
    result = cached_kontext.edit(image, "x", seed=1, steps=4, step_mask=HALF)
    said = json.loads(json.dumps(result.request(result.outputs[0])))
    assert said["step_mask"] == [1, 0, 1, 0]
    again = cached_kontext.edit(image, "x", seed=1, steps=4, step_mask=said["step_mask"])
    np.testing.assert_array_equal(latents(again), latents(result))


def test_the_command_line_takes_a_mask(caching: Callable[..., Bundle], image: Image.Image, tmp_path: Path) -> None:
    image.save(tmp_path / "in.png")
    words = ["edit", caching().path, "-i", tmp_path / "in.png", "-p", "x", "-o", tmp_path / "out.png"]
    done = CliRunner().invoke(app, [*map(str, words), "--steps", "2", "--step-mask", "1,0"])
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "out.png") as made:
        assert json.loads(made.info["kontext-trt"])["step_mask"] == [1, 0]


def test_the_bundle_has_a_small_graph_over_weights_that_are_there(caching: Callable[..., Bundle]) -> None:
    bundle, manifest = caching(), caching().manifest
    assert manifest.features == ("masks", "velocity", "step_cache")
    assert bundle.verify().problems == ()
    small, whole = bundle.graph("cached_denoiser"), bundle.graph("denoiser")
    assert set(small.weights) <= set(whole.weights)
    assert small.num_parameters < whole.num_parameters / 2  # of four blocks
    shape = usual_shape(bundle)
    specs = request_tensors(bundle, shape)
    assert specs["residual"].shape == (1, shape.grid[0] * shape.grid[1], manifest.model.dims.hidden)


def test_a_feature_without_its_graph_is_damage(caching: Callable[..., Bundle], tmp_path: Path) -> None:
    for change in (lambda raw: raw["features"].remove("step_cache"), lambda raw: raw["graphs"].pop("cached_denoiser")):
        copied = Path(shutil.copytree(caching().path, tmp_path / "copy"))
        raw = json.loads((copied / MANIFEST).read_text())
        change(raw)
        (copied / MANIFEST).write_text(json.dumps(raw))
        with pytest.raises(BundleError, match="the feature step_cache and a graph of cached_denoiser come together"):
            Bundle.open(copied)
        shutil.rmtree(copied)


def test_a_bundle_without_it_is_told_by_name(kontext: Kontext, image: Image.Image) -> None:
    with pytest.raises(BundleError, match="does not have the feature step_cache, which a request needs"):
        kontext.edit(image, "x", steps=2, step_mask=[1, 0])


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"steps": 4, "step_mask": (1, 0)}, "step_mask is of 2 steps, and this request takes 4$"),
        ({"steps": 4, "strength": 0.5, "step_mask": HALF}, "takes 2, of 4 at a strength of 0.5"),
        ({"sigmas": [1, 0.5], "step_mask": HALF}, "step_mask is of 4 steps, and this request takes 2$"),
    ],
)
def test_a_mask_is_of_the_steps_that_are_taken(
    cached_kontext: Kontext, image: Image.Image, asked: dict[str, Any], words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        cached_kontext.edit(image, "x", **asked)
    assert Sampling(strength=0.5, steps=4, step_mask=(1, 0)).step_mask == (True, False)


@pytest.mark.check  # the transformer traced for each
@pytest.mark.parametrize("operators", [one for one in Operators if one is not Operators.SINGLE])
def test_every_form_of_operators_computes_the_same(
    caching: Callable[..., Bundle], cached_kontext: Kontext, image: Image.Image, operators: Operators
) -> None:
    asked = {"seed": 1, "steps": 4, "step_mask": HALF}
    with Kontext.open(caching(operators.value, operators=operators)) as other:
        found = latents(other.edit(image, "x", **asked))
    np.testing.assert_allclose(found, latents(cached_kontext.edit(image, "x", **asked)), atol=1e-4)


@pytest.mark.check  # a calibration for this alone
@pytest.mark.parametrize("operators", [Operators.SINGLE, Operators.FUSED])
def test_a_quantized_bundle_caches_steps_in_its_own_type(
    caching: Callable[..., Bundle], samples: Path, image: Image.Image, tmp_path: Path, operators: Operators
) -> None:
    plain = caching(operators.value if operators is Operators.FUSED else "plain", operators=operators)
    made = quantize_bundle(plain, tmp_path / "fp8", make_recipe("fp8"), samples, calibrating=QUICK)
    assert made.graph("cached_denoiser").quantization is None
    assert made.verify().problems == ()
    asked = {"seed": 1, "steps": 4, "step_mask": HALF}
    with Kontext.open(plain) as before, Kontext.open(made) as after:
        apart = latents(before.edit(image, "x", **asked)) - latents(after.edit(image, "x", **asked))
    assert 0 < np.abs(apart).mean() < 0.05


@pytest.mark.check  # exports for this alone
def test_swapped_loras_reach_both_graphs(
    caching: Callable[..., Bundle], lora_file: Callable[[int], Path], image: Image.Image
) -> None:
    branched = caching("branched", lora_rank=4)
    fused = caching("fused-lora", loras=(LoraChoice(path=lora_file(1)),))
    assert {"denoiser", "cached_denoiser"} <= set(branched.manifest.branches.layers)  # pyright: ignore[reportOptionalMemberAccess]
    asked = {"seed": 1, "steps": 4, "step_mask": HALF}
    with Kontext.open(branched) as swapping, Kontext.open(fused) as baked:
        found = latents(swapping.edit(image, "x", loras=[(lora_file(1), 1.0)], **asked))
        np.testing.assert_allclose(found, latents(baked.edit(image, "x", **asked)), atol=1e-4)
        assert np.abs(found - latents(swapping.edit(image, "x", **asked))).max() > 1e-3


@pytest.mark.check  # both graphs traced for this alone
def test_a_compiler_takes_whole_and_cached_steps(caching: Callable[..., Bundle]) -> None:
    bundle = caching("bf16", precision=Precision.BF16)
    manifests = [build_ahead(bundle, name).manifest for name in ("denoiser", "cached_denoiser")]
    assert all(one.size_bytes for one in manifests)
    whole, cached = (sum(one.census.attention.values()) for one in manifests)
    assert (whole, cached) == (4, 1), "of a cached step only the first block attends"
