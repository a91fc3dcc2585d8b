"""Graphs traced once per run: tracing takes seconds, and hangs on component, configuration and options alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from once_per_run import OncePerRun

from kontext_trt.engine.components import Component
from kontext_trt.engine.errors import MissingDependencyError
from kontext_trt.export.environment import require_export

if TYPE_CHECKING:
    import onnx_ir as ir

    from kontext_trt.export.configs import ModelConfig
    from kontext_trt.export.graphs.trace import TraceOptions

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


@pytest.fixture(scope="session", autouse=True)
def traced_once(once_per_run: OncePerRun) -> Iterator[None]:
    """Exports in this run's processes share the graphs that they trace. `traced_anew` is for tests of tracing."""
    try:
        require_export()
    except MissingDependencyError:
        yield
        return
    from kontext_trt.export import export
    from kontext_trt.export.graphs import trace

    loaded: dict[str, ir.Model] = {}

    def cached(component: Component, config: ModelConfig, options: TraceOptions) -> ir.Model:
        asked = repr((component.name, msgspec.json.encode(config), options))
        key = f"{component.name}-{hashlib.sha256(asked.encode()).hexdigest()[:16]}.onnx"
        if key not in loaded:
            path = once_per_run.make(key, lambda path: save_traced(trace.trace(component, config, options), path))
            loaded[key] = load_traced(path)
        return loaded[key].clone()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "trace", cached)
        yield


@pytest.fixture
def traced_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    from kontext_trt.export import export
    from kontext_trt.export.graphs import trace

    monkeypatch.setattr(export, "trace", trace.trace)
