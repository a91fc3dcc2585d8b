"""A TensorRT whose engines are ONNX Runtime sessions on raw addresses, and plans for it.

It has the names that the runtime uses of the real one, and refuses what that refuses: an execution without addresses or
with too little memory, shapes after a graph was recorded of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from enum import Enum
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from simulated_cuda import SimulatedCuda
from stored_plans import put_plan

from kontext_trt.engine.bundle.bundle import Bundle
from kontext_trt.engine.bundle.shared_file import SharedFile
from kontext_trt.engine.components import ElementType
from kontext_trt.engine.plans.census import Census
from kontext_trt.engine.plans.coverage import Coverage
from kontext_trt.engine.plans.ingredients import plan_ingredients
from kontext_trt.engine.plans.machine import Machine
from kontext_trt.engine.plans.manifest import SCHEMA, BuildReport, PlanManifest
from kontext_trt.engine.plans.options import BuildOptions
from kontext_trt.engine.plans.store import PlanStore
from kontext_trt.engine.plans.targets import Target
from kontext_trt.engine.system.chunked_hash import hash_buffer
from kontext_trt.engine.system.gpus import Gpu
from kontext_trt.runtime.executors.onnxruntime_cpu import OnnxRuntimeCpu
from kontext_trt.runtime.flow.tensors import output_specs

VERSION = "10.99.0"
GPU = Gpu(index=0, name="Simulated GPU", major=9, minor=0, memory_bytes=4 << 30)
MACHINE = Machine(flavour="tensorrt", version=VERSION, gpu=GPU)
ACTIVATIONS = {
    "clip": 1000,
    "t5": 3000,
    "vae_encoder": 5000,
    "conditioner": 2000,
    "denoiser": 4000,
    "cached_denoiser": 1500,
    "vae_decoder": 9000,
}


class DataType(Enum):
    FLOAT = ElementType.FLOAT32
    HALF = ElementType.FLOAT16
    BF16 = ElementType.BFLOAT16
    INT32 = ElementType.INT32
    UINT8 = ElementType.UINT8


class TensorIOMode(Enum):
    INPUT = 1
    OUTPUT = 2


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


@lru_cache(maxsize=2)
def _host(bundle: Path) -> OnnxRuntimeCpu:
    """One set of sessions for all simulations of a bundle. Those of copies that tests make go with the tests."""
    return OnnxRuntimeCpu(Bundle.open(bundle), threads=1)


class Library:
    """The module, over a simulated device. `faults` are callables by place: "deserialize", "context", "enqueue"."""

    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")
    DataType, TensorIOMode, ILogger = DataType, TensorIOMode, ILogger

    def __init__(self, cuda: SimulatedCuda, bundle: Bundle) -> None:
        self.cuda, self.bundle = cuda, bundle
        self.compute = _host(bundle.path)._compute
        self.faults: dict[str, Callable[[str], bool]] = {}
        self.loaded: list[str] = []
        self.opened: list[str] = []
        self.executions: list[str] = []
        self.scratch_bytes = 0
        self.on_budget: Callable[[int], None] = lambda size_bytes: None

    def faulty(self, place: str, component: str) -> bool:
        return place in self.faults and self.faults[place](component)

    def Runtime(self, logger: object) -> Runtime:  # noqa: N802
        return Runtime(self, logger)


class Runtime:
    def __init__(self, library: Library, logger) -> None:
        self.library, self.logger = library, logger

    def deserialize_cuda_engine(self, data: memoryview) -> Engine | None:
        plan = json.loads(bytes(data))
        if self.library.faulty("deserialize", plan["component"]):
            self.logger.log(ILogger.ERROR, "cudaMalloc failed: out of memory")
            return None
        try:
            return Engine(self.library, plan["component"], self.logger, plan["weights"])
        except Exception as error:
            self.logger.log(ILogger.ERROR, f"out of memory: {error}")
            return None


class Engine:
    def __init__(self, library: Library, component: str, logger, weight_bytes: int) -> None:
        self.library, self.component, self.logger = library, component, logger
        self.table = library.bundle.component(component)
        self.ports = self.table.ports
        self.weights = 0
        self.weights = library.cuda.malloc(weight_bytes)
        self._budget = self._weight_bytes = weight_bytes
        library.loaded.append(component)
        library.opened.append(component)

    def _set_budget(self, size_bytes: int) -> None:
        if not self.library.faulty("streaming budget", self.component):
            self.library.on_budget(size_bytes)
            self._budget = size_bytes

    num_io_tensors = property(lambda self: len(self.ports))
    weight_streaming_budget_v2 = property(lambda self: self._budget, _set_budget)

    @property
    def weight_streaming_scratch_memory_size(self) -> int:
        return self.library.scratch_bytes if self._budget < self._weight_bytes else 0

    def get_tensor_name(self, index: int) -> str:
        return self.ports[index].name

    def _port(self, name: str):
        return next(port for port in self.ports if port.name == name)

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        inputs = [port.name for port in self.table.inputs]
        return TensorIOMode.INPUT if name in inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        precision = self.library.bundle.graph(self.component).precision
        return DataType(self._port(name).element_type.resolve(precision))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        dims = self.library.bundle.manifest.model.dims.resolve(self._port(name).dims)
        return tuple(extent if isinstance(extent, int) else -1 for extent in dims)

    def create_execution_context(self, strategy: object) -> Context | None:
        assert strategy == "user managed"
        return None if self.library.faulty("context", self.component) else Context(self)

    def __del__(self) -> None:
        if self.weights:
            self.library.cuda.free(self.weights)
            self.library.loaded.remove(self.component)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.library = engine, engine.library
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.memory = (0, 0)
        self.recorded = False

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert not self.recorded, "a graph was recorded of other shapes"
        self.shapes[name] = shape
        return True

    def infer_shapes(self) -> list[str]:
        return [port.name for port in self.engine.table.inputs if port.name not in self.shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        component = self.engine.component
        shape = output_specs(self.library.bundle, component, self.shapes)[name].shape
        return (*shape[:-1], shape[-1] + 1) if self.library.faulty("shape", component) else shape

    def update_device_memory_size_for_shapes(self) -> int:
        batch = next(iter(self.shapes.values()))[0]
        return ACTIVATIONS[self.engine.component] * batch + self.engine.weight_streaming_scratch_memory_size

    def set_device_memory(self, address: int, size: int) -> None:
        assert not self.library.cuda.recording, "memory is given before a graph is recorded, not while"
        self.memory = (address, size)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return address % 256 == 0

    def execute_async_v3(self, stream: int) -> bool:
        library, component = self.library, self.engine.component
        stream_object = library.cuda.stream_at(stream)
        needed = self.update_device_memory_size_for_shapes()
        if library.faulty("enqueue", component):
            self.engine.logger.log(ILogger.ERROR, "simulated refusal")
            return False
        if stream_object.capture is not None:
            if library.faulty("capture", component):
                library.cuda.break_capture(stream_object)
                return True
            self.recorded = True
        assert self.memory[1] >= needed
        addresses, memory, shapes = dict(self.addresses), self.memory, dict(self.shapes)

        def work() -> None:
            library.cuda.check(memory[0], needed)
            library.cuda.check(self.engine.weights, 1)
            library.executions.append(component)
            self._compute(addresses, shapes)

        library.cuda.enqueue(work, stream_object)
        return True

    def _compute(self, addresses: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> None:
        from kontext_trt.runtime.flow.tensors import input_specs, output_specs

        library, component = self.library, self.engine.component
        bundle = library.bundle
        specs = {**input_specs(bundle, component, shapes), **output_specs(bundle, component, shapes)}
        arrays = {}
        for name, spec in specs.items():
            library.cuda.check(addresses[name], spec.size_bytes)
            raw = (np.ctypeslib.ctypes.c_uint8 * spec.size_bytes).from_address(addresses[name])
            arrays[name] = np.ctypeslib.as_array(raw).view(spec.element_type.number.numpy).reshape(spec.shape)
        outputs = {port.name for port in self.engine.table.outputs}
        library.compute(
            component,
            {name: array for name, array in arrays.items() if name not in outputs},
            {name: array for name, array in arrays.items() if name in outputs},
        )


class Contexts:
    def __init__(self, library: Library) -> None:
        self.library = library

    def create(self, engine: Engine):
        return engine.create_execution_context("user managed")

    def recordable(self, context: Context, stream: int) -> bool:
        return not self.library.faulty("unfinished", context.engine.component)

    def close(self) -> None:
        pass


class SimulatedFlavour:
    """See `Flavour`, as far as the runtime needs it."""

    name, version = "tensorrt", VERSION

    def __init__(self, library: Library) -> None:
        self.trt = library

    def refusal(self, plan: memoryview) -> str:
        return ""

    def contexts(self, cache: SharedFile) -> Contexts:
        return Contexts(self.trt)


def add_plans(
    bundle: Bundle, coverage: Coverage, *, streamable: tuple[str, ...] = (), options: BuildOptions | None = None,
    components: Iterable[str] | None = None, created: str = "2026-11-21T00:00:00Z",
) -> dict[str, PlanManifest]:  # fmt: skip
    """A plan a component in the bundle's store, for the simulated machine."""
    store, plans = PlanStore.of(bundle.path), {}
    target = Target(flavour="tensorrt", version=VERSION, capability="sm_90", gpu=GPU.name)
    for component in components or bundle.components:
        asked = options or BuildOptions(weight_streaming=component in streamable)
        ingredients = plan_ingredients(bundle, component, target, coverage, asked)
        weights = bundle.graph(component).weight_bytes
        data = json.dumps({"component": component, "weights": weights}).encode()
        census = Census(
            layers=1, gemms={}, convolutions={}, attention={}, attention_asked=0, copies=0, weight_bytes=weights,
            activation_bytes=ACTIVATIONS[component] * coverage.batch, io_bytes=0,
        )  # fmt: skip
        manifest = PlanManifest(
            schema=SCHEMA, key=ingredients.key, ingredients=ingredients, size_bytes=len(data),
            chunked_sha256=hash_buffer(memoryview(data)), producer="test", created=created,
            build=BuildReport(options=asked, seconds=0.0, weight_bytes=weights, peak_bytes=0), census=census,
        )  # fmt: skip
        put_plan(store, data, manifest)
        plans[component] = replace(manifest)
    return plans
