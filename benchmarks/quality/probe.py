"""Runs requests with a witness: what goes into one step of the denoiser, and what comes out of every step."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...engine.bundle.bundle import Bundle
from ...engine.components import DENOISER
from ...export.emulate.torch_device import TorchDevice
from ...export.emulate.torch_executor import TorchExecutor, to_host
from ...runtime.kontext import Kontext
from ...runtime.outputs.result import Result
from .compare_options import CompareCase

Inputs = Mapping[str, Tensor]


class WitnessExecutor(TorchExecutor):
    """Keeps the latents after each step, (b, n, channels) float32, and the inputs of one step in the middle."""

    def __init__(self, bundle: Bundle, device: TorchDevice, num_steps: int) -> None:
        super().__init__(bundle, device)
        self._num_steps = num_steps
        self.latents: list[NDArray[np.float32]] = []
        self.middle: Inputs = {}

    def compute(self, component: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        if component == DENOISER.name and len(self.latents) == self._num_steps // 2:
            self.middle = {name: tensor.clone() for name, tensor in inputs.items()}  # the workspace's own are reused
        super().compute(component, inputs, outputs)
        if component == DENOISER.name:
            self.latents.append(to_host(outputs["next_latents"]))

    def serve(self, kontext: Kontext, case: CompareCase) -> Result:
        """Serve one case by `kontext`, whose executor this is; what was kept before is forgotten."""
        self.latents, self.middle = [], {}
        return kontext.run(case.request(self._num_steps))
