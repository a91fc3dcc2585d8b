"""Running requests with a witness: what went into each step of the denoiser, and what came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...engine.bundle import Bundle
from ...runtime.kontext import Kontext
from ...runtime.pictures import Picture
from ...runtime.result import Result
from ..torch_executor import TorchDevice, TorchExecutor

Inputs = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A request to compare on: an edit, or without `image` text to image. `size` None takes the model's own choice."""

    prompt: str
    seed: int
    image: Picture | None = None
    size: tuple[int, int] | None = None


class WitnessExecutor(TorchExecutor):
    """Keeps each step's inputs and the latents after it, (b, n, channels) float32."""

    def __init__(self, bundle: Bundle, device: TorchDevice) -> None:
        super().__init__(bundle, device)
        self.steps: list[Inputs] = []
        self.latents: list[NDArray[np.float32]] = []

    def run(self, component: str, inputs: Mapping[str, Tensor | NDArray[Any]]) -> dict[str, Tensor]:
        outputs = super().run(component, inputs)
        if component == "denoiser":
            self.steps.append({name: self.to_device(value) for name, value in inputs.items()})
            self.latents.append(self.fetch(outputs["next_latents"]))
        return outputs

    def serve(self, kontext: Kontext, case: Case, steps: int | None) -> Result:
        """Serve one case by `kontext`, whose executor this is; what was kept before is forgotten."""
        self.steps, self.latents = [], []
        if case.image is None:
            return kontext.generate(case.prompt, seed=case.seed, steps=steps, size=case.size)
        return kontext.edit(case.image, case.prompt, seed=case.seed, steps=steps, size=case.size)
