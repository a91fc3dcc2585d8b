"""Loads a bundle's components as torch modules over the bundle's own weight files.

Nothing is copied before it is used.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...engine.bundle.bundle import NETWORKS, Bundle
from ...engine.components import ElementType
from ...engine.documents import read_json
from ...engine.errors import BundleError, KontextError
from ...engine.number_types import ONNX
from ..configs import ModelConfig
from ..graphs.trace import default_dtype, expected_tensors, model_dims, tensor_name
from ..networks.build import build_module
from ..torch_types import torch_dtype

_NO_RESERVE = 0x4000  # linux/mman.h's MAP_NORESERVE: a file larger than memory is mapped, since little is written to


def read_config(bundle: Bundle) -> ModelConfig:
    """Return the configuration of the checkpoint that a bundle was made from.

    Raises:
        BundleError: The bundle is of a version that did not keep it, or the file is damaged.
    """
    if all(record.path != NETWORKS for record in bundle.manifest.files):
        raise BundleError(f"{bundle.path} has no {NETWORKS}, it is of an older version; export it again")
    file = bundle.file(NETWORKS)

    def damaged(reason: str) -> BundleError:
        return BundleError(f"{file} is damaged ({reason}); export the bundle again")

    config = read_json(file.read_bytes(), ModelConfig, damaged)
    model = bundle.manifest.model
    blocks = (config.transformer.num_double_blocks, config.transformer.num_single_blocks)
    if model_dims(config) != model.dims or blocks != (model.num_double_blocks, model.num_single_blocks):
        raise damaged("it describes other networks than the manifest")
    return config


def read_model(bundle: Bundle, component: str) -> ir.Model:
    """Read a component's graph, whose weights lie where they may, as `Bundle.open_graph` says.

    Raises:
        BundleError: An initializer lies elsewhere, or the graph is no ONNX graph.
    """
    path = bundle.open_graph(component).path
    with reading(path):
        return ir.load(path)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a graph that we did not make has libraries and our own readers raise into BundleError."""
    try:
        yield
    except (KontextError, OSError):  # a full disk is not the graph's fault
        raise
    except Exception as error:
        raise BundleError(f"{path} is not a graph of this project's ({type(error).__name__}: {error})") from error


class MappedFiles:
    """Maps each file once, however many tensors lie in it: a mapping of Python's holds a descriptor open.

    Writing to a mapped tensor copies the page, and changes neither the file nor what other `MappedFiles` give.
    """

    def __init__(self) -> None:
        self._files: dict[Path, NDArray[np.uint8]] = {}

    def bytes_of(self, path: Path, offset: int, size_bytes: int) -> Tensor:
        """Return (size_bytes,) uint8 of a file."""
        if path not in self._files:
            with path.open("rb") as file:
                access = {"flags": mmap.MAP_PRIVATE | _NO_RESERVE, "prot": mmap.PROT_READ | mmap.PROT_WRITE}
                self._files[path] = np.frombuffer(mmap.mmap(file.fileno(), 0, **access), np.uint8)
        return torch.from_numpy(self._files[path][offset : offset + size_bytes])


def read_tensor(value: ir.Value, files: MappedFiles | None = None) -> Tensor:
    """Return an initializer's values, mapped from its file, which may be one of `files`, if it lies in one.

    NVFP4 comes as bytes of two codes (uint8).
    """
    tensor, dtype = value.const_value, torch_dtype(ONNX[(value.dtype or ir.DataType.FLOAT).name])
    assert tensor is not None
    assert value.shape is not None
    shape = list(value.shape.numpy())
    if value.dtype == ir.DataType.FLOAT4E2M1:
        shape[-1] //= 2
    if isinstance(tensor, ir.ExternalTensor):
        size_bytes = prod(shape) * dtype.itemsize
        data = (files or MappedFiles()).bytes_of(Path(tensor.path), tensor.offset or 0, size_bytes)
        return data.view(dtype).reshape(shape)
    return torch.from_numpy(np.frombuffer(tensor.tobytes(), np.uint8).copy()).view(dtype).reshape(shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleGraph:
    """Holds a component's graph, read, with its initializers by name."""

    component: str
    model: ir.Model
    path: Path
    dtype: torch.dtype
    files: MappedFiles = field(default_factory=MappedFiles)

    @classmethod
    def read(cls, bundle: Bundle, component: str) -> BundleGraph:
        precision = bundle.graph(component).precision
        return cls(
            component=component,
            model=read_model(bundle, component),
            path=bundle.path / bundle.graph(component).path,
            dtype=torch_dtype(ElementType.ACTIVATION.resolve(precision).number),
        )

    @property
    def initializers(self) -> Mapping[str, ir.Value]:
        return self.model.graph.initializers

    def read_tensor(self, value: ir.Value) -> Tensor:
        """Return one of its initializers' values, as the function does."""
        return read_tensor(value, self.files)


def load_module(graph: BundleGraph, config: ModelConfig, replaced: Mapping[str, nn.Module] | None = None) -> nn.Module:
    """Return the component as a torch module on the CPU, its parameters mapped from the bundle's files.

    Args:
        graph: The component's graph.
        config: The configuration of the bundle's networks.
        replaced: Modules to put in the place of the component's own, by name.

    Raises:
        BundleError: The graph lacks a parameter, or has one of another shape.
    """
    values = {tensor_name(name): value for name, value in graph.initializers.items()}
    with reading(graph.path):
        _check_shapes(graph, config, values, replaced or {})
        with default_dtype(graph.dtype), _without_memory():
            residual = any(value.name == "residual" for value in graph.model.graph.outputs)
            module = build_module(graph.component, config, gives_residual=residual)
        for name, other in (replaced or {}).items():
            module.set_submodule(name, other)
        for name, parameter in list(module.named_parameters(remove_duplicate=False)):
            if parameter.is_meta:
                owner, _, own_name = name.rpartition(".")
                mapped = nn.Parameter(graph.read_tensor(values[tensor_name(name)]), requires_grad=False)
                setattr(module.get_submodule(owner), own_name, mapped)
    return module


def _check_shapes(
    graph: BundleGraph, config: ModelConfig, values: Mapping[str, ir.Value], replaced: Mapping[str, nn.Module]
) -> None:
    """Raise BundleError for a parameter that a graph lacks, or has in another shape, before any memory is taken."""
    for name, shape in expected_tensors(graph.component, config).items():
        if any(name.startswith(f"{tensor_name(layer)}.") for layer in replaced):
            continue
        value = values.get(name)
        if value is None:
            raise BundleError(f"the {graph.component} graph has no {name}; export the bundle again")
        found = () if value.shape is None else tuple(value.shape.numpy())
        if found != shape:
            raise BundleError(f"the {graph.component} graph has {name} as {list(found)}, not {list(shape)}")


@contextmanager
def _without_memory() -> Iterator[None]:
    """Give parameters that are registered meanwhile shapes and no memory; buffers, which modules compute, have both."""
    original: Callable[..., None] = nn.Module.register_parameter

    def register(module: nn.Module, name: str, parameter: Any) -> None:
        original(module, name, parameter if parameter is None else nn.Parameter(parameter.to("meta"), False))

    nn.Module.register_parameter = register  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        nn.Module.register_parameter = original  # pyright: ignore[reportAttributeAccessIssue]
