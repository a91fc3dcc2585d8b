"""Traces a component to an ONNX graph without its weights.

Modules are made of fake tensors, so nothing is allocated whatever the size. Initializers keep their parameter names.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import onnx_ir as ir
import torch
from onnx_ir.passes import common as passes
from onnxscript.optimizer import fold_constants
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim

from ...engine.components import DYNAMIC_DIMS, Component, ElementType, Operators, Precision
from ...engine.errors import CheckpointError, ExportError
from ...engine.model_dims import ModelDims
from ..configs import ModelConfig
from ..networks.build import build_module
from ..networks.layers import num_vectors
from ..torch_types import torch_dtype
from .functions import add_functions

# sizes to trace with: different from each other and from every constant, and none of them 0 or 1, which would be frozen
_EXAMPLE_DIMS = {"b": 3, "n": 110, "m": 42, "N": 5, "h": 6, "w": 10}


def model_dims(config: ModelConfig) -> ModelDims:
    """Return the constants in the components' shapes."""
    transformer = config.transformer
    return ModelDims(
        clip_length=config.clip.length,
        text_length=config.t5.length,
        text_width=transformer.text_width,
        pooled_width=transformer.pooled_width,
        channels=transformer.channels,
        hidden=transformer.hidden,
        vectors=num_vectors(transformer),
        rope_width=transformer.head_width // 2,
    )


def example_dims(dims: ModelDims) -> dict[str, int]:
    """Return the sizes of symbolic dimensions to trace with, by name."""
    return {**_EXAMPLE_DIMS, "s": dims.text_length + _EXAMPLE_DIMS["n"] + _EXAMPLE_DIMS["m"]}


def tensor_name(parameter: str) -> str:
    """Return the name that a module's parameter has in a checkpoint.

    `model.` is the wrapper, and T5's embedding is tied.
    """
    name = parameter.removeprefix("model.")
    return "shared.weight" if name == "encoder.embed_tokens.weight" else name


def expected_tensors(component: str, config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the checkpoint's tensors that a component needs.

    Raises:
        CheckpointError: No network can be made of the configuration.
    """
    return dict(_expected_tensors(component, config))


@lru_cache(maxsize=64)
def _expected_tensors(component: str, config: ModelConfig) -> Mapping[str, tuple[int, ...]]:
    try:
        with torch.device("meta"):
            module = build_module(component, config)
    except Exception as error:  # whatever a library's network says of numbers that do not fit together
        raise CheckpointError(f"no {component} can be made of this checkpoint's shapes: {error}") from error
    return {tensor_name(name): tuple(parameter.shape) for name, parameter in module.named_parameters()}


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceOptions:
    """Holds the choices for one traced graph; `prune_last_block` is the denoiser's."""

    precision: Precision
    operators: Operators = Operators.SINGLE
    prune_last_block: bool = True


def trace(component: Component, config: ModelConfig, options: TraceOptions) -> ir.Model:
    """Return the component's graph; its weights are initializers without values, named as in `expected_tensors`.

    Raises:
        ExportError: Torch cannot trace the component.
    """
    dims, tensors = model_dims(config), expected_tensors(component.name, config)
    dtype = torch_dtype(ElementType.ACTIVATION.resolve(options.precision).number)
    examples = example_dims(dims)
    with FakeTensorMode(), _quiet():
        with default_dtype(dtype):
            module = build_module(
                component.name,
                config,
                operators=options.operators,
                prune_last_block=options.prune_last_block,
                gives_residual=any(port.name == "residual" for port in component.outputs),
            )
        inputs = tuple(
            _example(port.element_type.resolve(options.precision), dims.resolve(port.dims, **examples))
            for port in component.inputs
        )
        try:
            with torch.no_grad():
                program = torch.export.export(
                    module, inputs, dynamic_shapes=tuple(_dynamic(port.dims) for port in component.inputs), strict=False
                )
            result = torch.onnx.export(
                program, dynamo=True, opset_version=options.operators.opset, optimize=False, verbose=False
            )
        except Exception as error:
            raise ExportError(f"tracing {component.name} failed: {error}") from error
    assert result is not None
    model = result.model
    for value in model.graph.initializers.values():
        if tensor_name(value.name or "") in tensors:
            value.const_value = None
    _name_ports(model, component, dims)
    _simplify(model)
    add_functions(model, options.precision)
    return model


def _example(element_type: ElementType, shape: tuple[int | str, ...]) -> Tensor:
    return torch.zeros([int(extent) for extent in shape], dtype=torch_dtype(element_type.number))


def _dynamic(dims: tuple[str, ...]) -> dict[int, object]:
    """Return what torch.export should leave open.

    A multiple must be named for it; the rest it may name as it likes.
    """
    marks: dict[int, object] = {}
    for axis, dim in enumerate(dims):
        factor, _, name = dim.rpartition("*")
        if name in DYNAMIC_DIMS:
            marks[axis] = int(factor) * Dim(name, min=2) if factor else Dim.DYNAMIC
    return marks


def _name_ports(model: ir.Model, component: Component, dims: ModelDims) -> None:
    """Give inputs, outputs and symbolic dimensions the component table's names."""
    symbols: dict[str, str] = {}
    for value, port in zip(model.graph.inputs, component.inputs, strict=True):
        assert value.shape is not None
        for extent, dim in zip(value.shape, port.dims, strict=True):
            if isinstance(extent, ir.SymbolicDim) and extent.value is not None and "*" not in dim:
                symbols.setdefault(extent.value, dim)
    for value in _values(model):
        if value.shape is not None:
            value.shape = ir.Shape([_renamed(extent, symbols) for extent in value.shape])
    for values, ports in ((model.graph.inputs, component.inputs), (model.graph.outputs, component.outputs)):
        for value, port in zip(values, ports, strict=True):
            value.name = port.name
            value.shape = ir.Shape(dims.resolve(port.dims))


def _renamed(extent: int | ir.SymbolicDim, symbols: Mapping[str, str]) -> int | str | None:
    if isinstance(extent, int) or extent.value is None:
        return extent if isinstance(extent, int) else None
    return re.sub(r"[A-Za-z_]\w*", lambda match: symbols.get(match[0], match[0]), extent.value)


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    for node in model.graph:
        yield from node.outputs


def _simplify(model: ir.Model) -> None:
    """Drop what tracing leaves behind: source positions, unused and repeated nodes."""
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
    for value in _values(model):
        value.metadata_props.clear()
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    # weights have no values here, so only shapes and scalars fold; below opset 23 compilers want axes as literals
    fold_constants(model, onnx_shape_inference=False)
    for step in (
        passes.IdentityEliminationPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.RemoveUnusedNodesPass(),
    ):
        step(model)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Give floating-point parameters that are made meanwhile this type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes about packages it looks for and its own deprecations off the user's screen."""
    names = ("torch.onnx", "torch.onnx._internal.exporter._registration", "onnxscript")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
