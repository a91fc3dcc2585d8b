"""Runs components by torch, from a bundle's own files: what calibration observes and comparison looks into.

Quantized layers are emulated: their weights are dequantized as the graph says, and their inputs rounded as it says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ...engine.bundle.bundle import Bundle
from ...engine.components import Component, ElementType
from ...engine.errors import ExecutorError, KontextError
from ...runtime.flow.executor import LastWorkspace, Performed, run_in_turn, weakly
from ...runtime.flow.kept import KeptValues
from ...runtime.flow.stages import Stage
from ...runtime.flow.tensors import RequestShape, TensorSpec, request_tensors
from ...runtime.flow.workspace import Array
from ..torch_types import torch_dtype
from .bundle_modules import BundleGraph, load_module, read_config
from .emulation import emulated_layers
from .module_branches import ModuleBranches, from_host
from .torch_device import TorchDevice
from .wide_products import WideProducts

Compute = Callable[[str, Mapping[str, Tensor], Mapping[str, Tensor]], None]
"""The function that computes a component, from input tensors into output tensors."""


class TorchWorkspace:
    """Implements `Workspace` of `runtime.flow.workspace` with torch tensors; `compute` is the executor's."""

    def __init__(
        self, shape: RequestShape, tensors: Mapping[str, TensorSpec], device: torch.device, compute: Compute
    ) -> None:
        self.shape = shape
        self._compute = compute
        self._tensors = {
            name: torch.empty(spec.shape, dtype=torch_dtype(spec.element_type.number), device=device)
            for name, spec in tensors.items()
        }

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def run(self, component: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        self._compute(component, inputs, outputs)

    def copy(self, source: Tensor, to: Tensor) -> None:
        to.copy_(source)


class TorchExecutor:
    """Implements `Executor` of `runtime.flow.executor` with torch; modules are loaded when they are first needed.

    Args:
        bundle: The bundle whose components run.
        device: Where they run.
        hold_weights: Dequantize quantized weights once, not every time: faster, with more memory.

    Raises:
        ExecutorError: CUDA is asked for, and torch sees no CUDA device.
    """

    lost = ""

    def __init__(self, bundle: Bundle, device: TorchDevice = TorchDevice.AUTO, *, hold_weights: bool = False) -> None:
        has_cuda = torch.cuda.is_available()
        if device is TorchDevice.CUDA and not has_cuda:
            raise ExecutorError("torch sees no CUDA device; use --device cpu, or install torch for CUDA")
        self._device = torch.device("cuda" if has_cuda and device is not TorchDevice.CPU else "cpu")
        self.bundle, self._hold_weights = bundle, hold_weights
        self._modules: dict[str, nn.Module] = {}
        found = bundle.manifest.branches
        self._branches = {name: ModuleBranches(bundle, name, self._device) for name in (found.layers if found else ())}
        self._workspaces = LastWorkspace(weakly(self._workspace))
        self.name = f"torch ({self._device.type})"

    def module(self, component: str) -> nn.Module:
        """Return a component's module, loaded if it is not yet; what is done to it shows in what it computes."""
        if component not in self._modules:
            graph = BundleGraph.read(self.bundle, component)
            module = load_module(graph, read_config(self.bundle), emulated_layers(graph, hold=self._hold_weights))
            self._modules[component] = module.to(self._device)
            if component in self._branches:
                self._branches[component].attach(self._modules[component], graph)
        return self._modules[component]

    def keep(self, values: KeptValues) -> None:
        for component, branches in self._branches.items():
            branches.write(values.get(component, {}))

    def _workspace(self, shape: RequestShape) -> TorchWorkspace:
        return TorchWorkspace(shape, request_tensors(self.bundle, shape), self._device, weakly(self.compute))

    def load(self, component: str) -> None:
        self.module(component)

    def perform(
        self, shape: RequestShape, stages: Sequence[Stage], inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> Performed:
        workspace = self._workspaces.of(shape)
        for name, array in inputs.items():
            workspace[name].copy_(from_host(array, workspace[name].dtype))
        milliseconds = run_in_turn(stages, workspace)
        return Performed(outputs={name: to_host(workspace[name]) for name in outputs}, milliseconds=milliseconds)

    def run(self, component: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        ports, precision = self.bundle.component(component), self.bundle.graph(component).precision
        types = {port.name: port.element_type.resolve(precision).number for port in ports.given_inputs}
        given = {name: from_host(inputs[name], torch_dtype(number)).to(self._device) for name, number in types.items()}
        outputs = run_module(self.module(component), ports, given)
        return {name: to_host(tensor) for name, tensor in outputs.items()}

    def compute(self, component: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        """Run a component, from tensors into tensors."""
        made = run_module(self.module(component), self.bundle.component(component), inputs)
        with _failures(component):
            for name, tensor in made.items():
                outputs[name].copy_(tensor)

    def close(self) -> None:
        self._modules.clear()
        self._workspaces.clear()


@torch.no_grad()
def run_module(module: nn.Module, component: Component, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a component's outputs by name, computed by its module or one that stands in for it.

    Products of 16-bit operands on a CPU are added in float32 and rounded once, as a GPU does it.

    Args:
        module: What computes.
        component: The component, with the ports of the bundle that the module is of.
        inputs: The inputs by name.

    Raises:
        ExecutorError: Torch fails.
    """
    with _failures(component.name), WideProducts():
        outputs = module(*(inputs[port.name] for port in component.given_inputs))
        listed = (outputs,) if isinstance(outputs, Tensor) else outputs
        return {port.name: tensor for port, tensor in zip(component.outputs, listed, strict=True)}


@contextmanager
def _failures(component: str) -> Iterator[None]:
    """Turn whatever torch raises for a component into ExecutorError."""
    try:
        yield
    except KontextError:
        raise
    except Exception as error:
        raise ExecutorError(f"{component} failed in torch: {error}") from error


def to_host(tensor: Tensor) -> Array:
    """Return a copy of a tensor on the host, bfloat16 as its bits in uint16."""
    bits = tensor.cpu().view(torch.uint16) if tensor.dtype is torch_dtype(ElementType.BFLOAT16.number) else tensor.cpu()
    return bits.numpy().copy()
