"""Computes the branches that LoRAs are swapped into beside the linear layers of a torch module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...engine.branches import DOWN
from ...engine.bundle.bundle import Bundle
from ...runtime.flow.kept import kept_specs
from ...runtime.flow.workspace import Array
from ..graphs.fused_nodes import fused_nodes
from ..torch_types import torch_dtype
from .bundle_modules import BundleGraph
from .emulation import QuantizedLinear


class ModuleBranches:
    """Holds the matrices of one component's branches, which are zero at first.

    Args:
        bundle: A bundle that LoRAs can be swapped into.
        component: The component's name.
        device: Where they are.
    """

    def __init__(self, bundle: Bundle, component: str, device: torch.device) -> None:
        assert bundle.manifest.branches is not None
        self._packed = {
            name: torch.zeros(spec.shape, dtype=torch_dtype(spec.element_type.number), device=device)
            for name, spec in kept_specs(bundle)[component].items()
        }
        self._downs: dict[str, Tensor] = {}
        self._ups: dict[str, Tensor] = {}
        for one in bundle.manifest.branches.packed(component):
            pieces = dict(zip(one.layers, self._packed[one.name].split(one.rows), strict=False))
            (self._downs if one.name.startswith(DOWN) else self._ups).update(pieces)

    def write(self, values: Mapping[str, Array]) -> None:
        """Take other matrices, as they are packed; what is left out becomes zero."""
        for name, tensor in self._packed.items():
            tensor.copy_(from_host(values[name], tensor.dtype) if name in values else torch.zeros_like(tensor))

    def attach(self, module: nn.Module, graph: BundleGraph) -> None:
        """Make the linear layers of a module add their branches.

        Within fused operators a branch reads what its layer's product reads, rounded to FP8 if that is.
        """
        rounded = {
            layer.name for one in fused_nodes(graph.model) if one.definition.format.operands for layer in one.layers
        }
        for name, down in self._downs.items():
            layer = module.get_submodule(name)
            layer.register_forward_hook(_adding(down, self._ups[name], rounded=name in rounded))


def _adding(down: Tensor, up: Tensor, *, rounded: bool) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        (x,) = inputs
        if rounded and isinstance(layer, QuantizedLinear):
            x = layer.rounded(x)
        return output + x @ down @ up

    return add


def from_host(array: Array, dtype: torch.dtype) -> Tensor:
    """Return a tensor of `dtype` over a host array; bfloat16 comes as its bits, in uint16."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"])).view(dtype)
