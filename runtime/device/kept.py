"""Holds the inputs that stay from request to request in one block of device memory, which never moves."""

from __future__ import annotations

from collections.abc import Mapping

from ..flow.kept import KeptValues
from ..flow.tensors import TensorSpec
from .cuda import Cuda, CudaError, Handle
from .memory import DeviceBlock, DeviceTensor, Staging


class KeptOnDevice:
    """Holds the inputs of components that stay, and page-locked memory of the same size that they are copied from.

    Recorded graphs read them where they lie: other values need no other graph. They are zero at first.

    Args:
        cuda: The device.
        stream: The stream of the executor, which orders copies before what reads them.
        specs: The inputs, by component and by name.
    """

    def __init__(self, cuda: Cuda, stream: Handle, specs: Mapping[str, Mapping[str, TensorSpec]]) -> None:
        self._cuda, self._stream, self._inputs = cuda, stream, specs
        self._specs = {_key(one, name): spec for one, inputs in specs.items() for name, spec in inputs.items()}
        self._block: DeviceBlock | None = None
        self._staging: Staging | None = None

    @property
    def size_bytes(self) -> int:
        """The device memory that they take, in bytes."""
        return 0 if self._block is None else self._block.size_bytes

    def allocate(self) -> None:
        """Make room for them, if there is none yet: before anything is recorded that reads them.

        Raises GpuMemoryError if there is not enough memory.
        """
        if not self._specs or self._block is not None:
            return
        block = DeviceBlock(self._cuda, self._specs)
        try:
            self._staging = Staging(self._cuda, self._specs)
        except CudaError:
            block.close()
            raise
        self._block = block
        self.write({})

    def write(self, values: KeptValues) -> None:
        """Copy values to the device, and wait until they are there."""
        if self._block is None or self._staging is None:
            return
        for component, inputs in self._inputs.items():
            for name, spec in inputs.items():
                key = _key(component, name)
                self._staging.arrays[key][...] = values.get(component, {}).get(name, 0)
                tensor, source = self._block.tensors[key], self._staging.addresses[key]
                self._cuda.copy(tensor.address, source, spec.size_bytes, self._stream)
        self._cuda.synchronize(self._stream)

    def of(self, component: str) -> dict[str, DeviceTensor]:
        """Return a component's tensors by the names of its inputs; `allocate` has made room for them."""
        inputs = self._inputs[component]
        if not inputs:
            return {}
        assert self._block is not None
        return {name: self._block.tensors[_key(component, name)] for name in inputs}

    def close(self) -> None:
        """Free the memory. Whatever recorded it is gone."""
        if self._staging is not None:
            self._staging.close()
        if self._block is not None:
            self._block.close()
        self._block = self._staging = None


def _key(component: str, name: str) -> str:
    return f"{component}.{name}"
