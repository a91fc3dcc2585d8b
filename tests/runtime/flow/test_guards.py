"""NaN and infinity end a request, and are named by component, tensor and step."""

import numpy as np
import pytest

from kontext_trt import Kontext, NotFiniteError
from kontext_trt.engine.bundle.bundle import Bundle
from kontext_trt.engine.components import Precision
from kontext_trt.runtime.executors.onnxruntime_cpu import OnnxRuntimeCpu


class Poisoned(OnnxRuntimeCpu):
    """One output of one run of a component turns into NaN."""

    def poison(self, component: str, output: str, at: int = 0) -> None:
        self.target, self.runs_left = (component, output), at

    def _compute(self, component, inputs, outputs) -> None:
        super()._compute(component, inputs, outputs)
        if component == self.target[0]:
            if self.runs_left == 0:
                outputs[self.target[1]].flat[-1] = np.nan
            self.runs_left -= 1


@pytest.fixture
def poisoned(bundle: Bundle):
    executor = Poisoned(bundle)
    with Kontext(bundle, executor) as kontext:
        yield kontext, executor


@pytest.mark.parametrize(
    ("component", "output", "at", "where"),
    [
        ("clip", "pooled", 0, "clip: 1 of 64"),
        ("t5", "text", 0, "t5: 1 of"),
        ("t5", "text", 1, "t5, prompt 2: 1 of"),
        ("vae_encoder", "reference", 0, "vae_encoder: 1 of"),
        ("denoiser", "next_latents", 0, "denoiser, step 1 of 3: 1 of"),
        ("denoiser", "next_latents", 2, "denoiser, step 3 of 3: 1 of"),
        ("vae_decoder", "mean", 1, "vae_decoder, mean of the picture: 1 of 2"),
    ],
)  # fmt: skip
def test_nan_is_named_and_ends_the_request(poisoned, picture, component: str, output: str, at: int, where: str):
    kontext, executor = poisoned
    prompts = ["x", "y"] if at == 1 else "x"
    executor.poison(component, output, at)
    with pytest.raises(NotFiniteError, match=f"{where}.* values are NaN or infinite$"):
        kontext.edit(picture(128, 128), prompts, steps=3, seed=0)
    assert kontext.edit(picture(128, 128), "x", steps=1, seed=0).image.size == (128, 128)


def test_what_was_not_finite_is_not_kept(poisoned, picture):
    kontext, executor = poisoned
    executor.poison("clip", "pooled")
    with pytest.raises(NotFiniteError, match="clip"):
        kontext.edit(picture(128, 128), "x", steps=1, seed=0)
    assert "text" in kontext.edit(picture(128, 128), "x", steps=1, seed=0).milliseconds


def test_fp16_is_suspected_where_a_graph_has_it(poisoned, picture):
    kontext, executor = poisoned
    kontext._flow._precisions["clip"] = Precision.FP16
    executor.poison("clip", "pooled")
    with pytest.raises(NotFiniteError, match=r"clip: .* infinite; a graph in bf16 or fp32 instead of fp16 usually"):
        kontext.edit(picture(128, 128), "x", steps=1, seed=0)


@pytest.mark.parametrize(
    ("component", "output", "at", "where"),
    [("conditioner", "modulation", 0, "conditioner: 1 of"), ("denoiser", "next_latents", 1, "denoiser, step 2 of 4")],
)  # fmt: skip
def test_debug_nan_finds_the_step(poisoned, component: str, output: str, at: int, where: str):
    kontext, executor = poisoned
    executor.poison(component, output, at)
    with pytest.raises(NotFiniteError, match=where):
        kontext.generate("x", steps=4, seed=0, size=(32, 32), debug_nan=True)
    executor.poison(component, output, at)
    with pytest.raises(NotFiniteError, match=r"denoiser, step [14] of 4"):  # all that is seen without
        kontext.generate("x", steps=4, seed=0, size=(32, 32))
