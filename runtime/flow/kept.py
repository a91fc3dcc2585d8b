"""Describes the inputs that stay from request to request: the matrices of the LoRAs that are swapped in.

An executor makes room for them once, in one place, so that what it has recorded goes on reading them there.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...engine.bundle.bundle import Bundle
from ...engine.byte_sizes import human_bytes
from ...engine.errors import ExecutorError
from .tensors import TensorSpec
from .workspace import Array

KeptValues = Mapping[str, Mapping[str, Array]]
"""The values of kept inputs, by component and by input; an input that is left out is zero."""


def kept_specs(bundle: Bundle) -> dict[str, dict[str, TensorSpec]]:
    """Return the inputs that stay, by component and by name; none of a bundle that no LoRA can be swapped into."""
    dims = bundle.manifest.model.dims
    return {
        name: {
            port.name: TensorSpec(
                shape=tuple(int(extent) for extent in dims.resolve(port.dims)),
                element_type=port.element_type.resolve(bundle.graph(name).precision),
            )
            for port in bundle.component(name).kept_inputs
        }
        for name in bundle.components
    }


def kept_bytes(bundle: Bundle) -> int:
    """Return the bytes of all inputs that stay."""
    return sum(spec.size_bytes for specs in kept_specs(bundle).values() for spec in specs.values())


class KeptOnHost:
    """Holds the inputs of a bundle that stay, in host memory; they are zero at first.

    Raises:
        ExecutorError: There is not enough memory for them.
    """

    def __init__(self, bundle: Bundle) -> None:
        try:
            self._arrays = {
                component: {name: _zeros(spec) for name, spec in specs.items()}
                for component, specs in kept_specs(bundle).items()
            }
        except MemoryError as error:
            raise ExecutorError(
                f"the matrices of the LoRAs of {bundle.path} take {human_bytes(kept_bytes(bundle))}, for which there "
                "is not enough memory; export it with a lower --lora-rank"
            ) from error

    def of(self, component: str) -> dict[str, Array]:
        """Return a component's arrays by the names of its inputs."""
        return self._arrays[component]

    def write(self, values: KeptValues) -> None:
        """Take other values."""
        for component, arrays in self._arrays.items():
            for name, array in arrays.items():
                array[...] = values.get(component, {}).get(name, 0)


def _zeros(spec: TensorSpec) -> Array:
    return np.zeros(spec.shape, spec.element_type.number.numpy)
