"""Defines the flow: what a request computes, as stages over the tensors of a workspace.

Whoever runs the components, these are the stages and this is the one loop: executors of every kind and calibration are
driven by it. A stage only runs components and copies tensors, and depends on nothing but its fields and the request's
shape, so an executor may record it once and replay it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ...engine.components import CACHED_DENOISER, DENOISER
from .tensors import RequestShape, image_name, latents_before, reference_name, velocity_before
from .workspace import Workspace


@dataclass(frozen=True, slots=True)
class EncodeText:
    """Encodes one prompt with both text encoders."""

    prompt: int
    name: ClassVar[str] = "text"
    components: ClassVar[tuple[str, ...]] = ("clip", "t5")

    def run(self, w: Workspace) -> None:
        row = slice(self.prompt, self.prompt + 1)
        w.run("clip", {"input_ids": w["clip_ids"][row]}, {"pooled": w["prompt_pooled"][row]})
        w.run("t5", {"input_ids": w["t5_ids"][row]}, {"text": w["prompt_text"][row]})


@dataclass(frozen=True, slots=True)
class EncodeReference:
    """Encodes one reference, from pixels to packed latents."""

    reference: int
    name: ClassVar[str] = "encode"
    components: ClassVar[tuple[str, ...]] = ("vae_encoder",)

    def run(self, w: Workspace) -> None:
        w.run(
            "vae_encoder",
            {"image": w[image_name(self.reference)]},
            {"reference": w[reference_name(self.reference)]},
        )


@dataclass(frozen=True, slots=True)
class Condition:
    """Computes what all steps share: the references' tokens lie one after another, and a mask keeps the first's."""

    name: ClassVar[str] = "condition"
    components: ClassVar[tuple[str, ...]] = ("conditioner",)

    def run(self, w: Workspace) -> None:
        shape = w.shape
        for picture in range(shape.batch):
            prompt = picture // shape.num_seeds
            w.copy(w["prompt_pooled"][prompt], to=w["pooled"][picture])
            w.copy(w["prompt_text"][prompt], to=w["text"][picture])
            start = 0
            for number, (rows, columns) in enumerate(shape.references):
                stop = start + rows * columns
                w.copy(w[reference_name(number)][0], to=w["references"][picture][start:stop])
                start = stop
            if shape.masked:
                w.copy(w[reference_name(0)][0], to=w["clean"][picture])
        w.run(
            "conditioner",
            {
                "timesteps": w["timesteps"],
                "guidance": w["guidance"],
                "pooled": w["pooled"],
                "text": w["text"],
                "reference": w["references"],
            },
            {name: w[name] for name in ("modulation", "text_tokens", "reference_tokens")},
        )


@dataclass(frozen=True, slots=True)
class Step:
    """Takes one step of the flow, its update included.

    A step that is cached computes the first block and the final layer alone: between them it adds what the other blocks
    added in the last step that was not, `residual`.

    `zeros` stands for the velocity before the first step, and without a mask for where is kept, what, and its noise.
    What the denoiser multiplies by zero must be finite: a tensor that is an input of every request is, and a buffer
    with whatever was in it may not be. One for all four costs a copy of the latents' size per request.
    """

    index: int
    cached: bool = False
    name: ClassVar[str] = "denoise"

    @property
    def components(self) -> tuple[str, ...]:
        return (CACHED_DENOISER.name if self.cached else DENOISER.name,)

    def run(self, w: Workspace) -> None:
        after = w[latents_before(self.index + 1)]
        inputs = {
            "latents": w[latents_before(self.index)],
            "text_tokens": w["text_tokens"],
            "reference_tokens": w["reference_tokens"],
            "modulation": w["modulation"][self.index],
            "cos": w["cos"],
            "sin": w["sin"],
            "step_size": w["step_sizes"][self.index],
        }
        outputs = {"next_latents": after}
        if "velocity_weights" in w:  # a bundle of schema 2 has none
            inputs |= self._blending(w)
            outputs["velocity"] = w[velocity_before(self.index + 1)]
        if "residual" in w:  # of a bundle whose steps can be cached
            (inputs if self.cached else outputs)["residual"] = w["residual"]
        (component,) = self.components
        w.run(component, inputs, outputs)
        if self.index == 0:
            w.copy(after, to=w["first_latents"])

    def _blending(self, w: Workspace) -> dict[str, Any]:
        """Return what the update weights the velocity by, and what it keeps."""
        kept = ("keep", "clean", "noise")
        return {
            "previous_velocity": w[velocity_before(self.index) if self.index else "zeros"],
            "velocity_weights": w["velocity_weights"][self.index],
            **{name: w[name if w.shape.masked else "zeros"] for name in kept},
            "next_sigma": w["next_sigmas"][self.index],
        }


@dataclass(frozen=True, slots=True)
class Decode:
    """Decodes latents to pictures, one at a time: a decoder's activations are the largest of all."""

    name: ClassVar[str] = "decode"
    components: ClassVar[tuple[str, ...]] = ("vae_decoder",)

    def run(self, w: Workspace) -> None:
        for picture in range(w.shape.batch):
            self.picture(w, w[latents_before(w.shape.num_steps)], picture)

    def picture(self, w: Workspace, latents: Any, picture: int) -> None:
        """Decode one picture of packed latents (b, n, channels)."""
        row = slice(picture, picture + 1)
        grid = latents[row].reshape((1, *w.shape.grid, latents.shape[-1]))
        w.run("vae_decoder", {"latents": grid}, {"image": w["pictures"][row], "mean": w["picture_means"][row]})


Stage = EncodeText | EncodeReference | Condition | Step | Decode
"""A stage of a request. `name` is what its time counts as."""


def request_stages(
    shape: RequestShape,
    *,
    new_prompts: Sequence[int] = (),
    new_references: Sequence[int] = (),
    step_mask: Sequence[bool] | None = None,
) -> tuple[Stage, ...]:
    """Return the stages of a whole request, less the encoders of what a cache holds.

    `step_mask` says of each step whether it is whole; the others are cached.
    """
    encoders: list[Stage] = [EncodeText(prompt) for prompt in new_prompts]
    encoders += [EncodeReference(reference) for reference in new_references]
    whole = (True,) * shape.num_steps if step_mask is None else step_mask
    steps = (Step(index, cached=not one) for index, one in enumerate(whole))
    return (*encoders, Condition(), *steps, Decode())
