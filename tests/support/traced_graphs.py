"""Graphs traced once per run: tracing takes seconds, and hangs on component, configuration and options alone."""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest
from once_per_run import OncePerRun

from kontext_trt.engine.components import Component

if TYPE_CHECKING:
    import onnx_ir as ir

    from kontext_trt.export.configs import ModelConfig
    from kontext_trt.export.graphs.trace import TraceOptions

Trace: TypeAlias = "Callable[[Component, ModelConfig, TraceOptions], ir.Model]"
NO_VALUE = "no value"


def save_traced(model: ir.Model, path: Path) -> None:
    """Write a graph some of whose initializers have no values: these refer to a file that does not exist."""
    import onnx_ir as ir

    model = model.clone()
    for name, value in model.graph.initializers.items():
        if value.const_value is None:
            assert value.dtype is not None
            assert isinstance(value.shape, ir.Shape)
            value.const_value = ir.ExternalTensor(NO_VALUE, 0, 0, value.dtype, shape=value.shape, name=name)
    ir.save(model, path)


def load_traced(path: Path) -> ir.Model:
    """What `save_traced` wrote."""
    import onnx_ir as ir

    model = ir.load(path)
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor) and value.const_value.location == NO_VALUE:
            value.const_value = None
    return model


def what_is_traced(component: Component, config: ModelConfig, options: TraceOptions) -> str:
    """All that `trace` looks at: the configuration of the component's own part, and what its borders take from others;
    so models that have the same VAE share its graphs."""
    from kontext_trt.export.graphs.trace import model_dims

    dims = model_dims(config)
    borders = [dims.resolve(port.dims) for port in (*component.inputs, *component.outputs)]
    names = [port.name for port in component.ports]
    return repr((component.name, getattr(config, component.part), names, borders, dims.text_length, options))


def tracing_once(once_per_run: OncePerRun) -> Trace:
    """`trace`, of which a result may be what another test or process of this run has traced."""
    from kontext_trt.export.graphs.trace import trace

    loaded: dict[str, ir.Model] = {}

    @functools.wraps(trace)
    def cached(component: Component, config: ModelConfig, options: TraceOptions) -> ir.Model:
        asked = what_is_traced(component, config, options)
        key = f"{component.name}-{hashlib.sha256(asked.encode()).hexdigest()[:16]}.onnx"
        if key not in loaded:
            path = once_per_run.make(key, lambda path: save_traced(trace(component, config, options), path))
            loaded[key] = load_traced(path)
        return loaded[key].clone()

    return cached


def trace_once_here(folder: str) -> None:
    """For a child process that exports: share the graphs of the run whose shared folder this is."""
    from kontext_trt.export import export

    export.trace = tracing_once(OncePerRun(Path(folder)))


@pytest.fixture(scope="session")
def traced(once_per_run: OncePerRun) -> Trace:
    return tracing_once(once_per_run)


def list_functions_once(patch: pytest.MonkeyPatch) -> None:
    """torch.onnx lists the functions that it translates to anew for each graph, and only reads the list."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))


@pytest.fixture(scope="session")
def traced_once(traced: Trace) -> Iterator[None]:
    """Exports in this run's processes share the graphs that they trace. `traced_anew` is for tests of tracing."""
    from kontext_trt.export import export
    from kontext_trt.export.graphs import trace

    with pytest.MonkeyPatch.context() as patch:
        list_functions_once(patch)
        for module in (export, trace):
            patch.setattr(module, "trace", traced)
        yield


@pytest.fixture(scope="session", autouse=True)
def traced_once_where_exported(request: pytest.FixtureRequest) -> None:
    """Also for tests that export by themselves. Where no file that was collected does, torch is not imported."""
    if "kontext_trt.export.export" in sys.modules:
        request.getfixturevalue("traced_once")


@pytest.fixture
def traced_anew(monkeypatch: pytest.MonkeyPatch, traced: Trace) -> None:
    from kontext_trt.export import export
    from kontext_trt.export.graphs import trace

    for module in (export, trace):
        monkeypatch.setattr(module, "trace", inspect.unwrap(traced))
