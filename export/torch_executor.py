"""Components run by torch, from a bundle's own files: what calibration observes and comparison looks into.

Quantized layers are emulated: their weights are dequantized as the graph says, and their inputs rounded as it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..engine.bundle import Bundle
from ..engine.components import COMPONENTS
from ..engine.errors import ExecutorError
from .bundle_modules import BundleGraph, load_module, read_config
from .quantize.emulation import emulated_layers


class TorchDevice(str, Enum):
    """Where torch computes. AUTO takes a CUDA device if there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class TorchExecutor:
    """See `runtime.executor.Executor`. Values are torch tensors; modules are loaded when they are first needed."""

    def __init__(self, bundle: Bundle, device: TorchDevice = TorchDevice.AUTO) -> None:
        has_cuda = torch.cuda.is_available()
        if device is TorchDevice.CUDA and not has_cuda:
            raise ExecutorError("torch sees no CUDA device; use --device cpu, or install torch for CUDA")
        self._device = torch.device("cuda" if has_cuda and device is not TorchDevice.CPU else "cpu")
        self._bundle = bundle
        self._modules: dict[str, nn.Module] = {}
        self.name = f"torch ({self._device.type})"

    def module(self, component: str) -> nn.Module:
        """A component's module, loaded if it is not yet; what is done to it shows in what it computes."""
        if component not in self._modules:
            graph = BundleGraph.read(self._bundle, component)
            module = load_module(graph, read_config(self._bundle), emulated_layers(graph))
            self._modules[component] = module.to(self._device)
        return self._modules[component]

    def load(self, component: str) -> None:
        self.module(component)

    def run(self, component: str, inputs: Mapping[str, Tensor | NDArray[Any]]) -> dict[str, Tensor]:
        return self.run_module(self.module(component), component, inputs)

    @torch.no_grad()
    def run_module(
        self, module: nn.Module, component: str, inputs: Mapping[str, Tensor | NDArray[Any]]
    ) -> dict[str, Tensor]:
        """As `run`, by a module that stands in for the component's own."""
        ports = COMPONENTS[component]
        arguments = [self.to_device(inputs[port.name]) for port in ports.inputs]
        try:
            outputs = module(*arguments)
        except (RuntimeError, ValueError) as error:
            raise ExecutorError(f"{component} failed in torch: {error}") from error
        listed = (outputs,) if isinstance(outputs, Tensor) else outputs
        return {port.name: value for port, value in zip(ports.outputs, listed, strict=True)}

    def to_device(self, value: Tensor | NDArray[Any]) -> Tensor:
        """A value of this executor, or a host array, as a tensor where the modules are."""
        tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.require(value, requirements=["C", "W"]))
        return tensor.to(self._device)

    def row(self, value: Tensor, index: int) -> Tensor:
        return value[index]

    def fetch(self, value: Tensor) -> NDArray[Any]:
        return value.cpu().numpy().copy()

    def close(self) -> None:
        self._modules.clear()
