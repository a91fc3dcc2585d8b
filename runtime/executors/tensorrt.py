"""Implements engines of TensorRT and TensorRT-RTX, opened from a bundle's plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from ...engine.bundle.bundle import Bundle
from ...engine.errors import ExecutorError, PlanError
from ...engine.flavour import ContextMaker, Flavour
from ...engine.flavour.start import start
from ...engine.number_types import NUMBER_TYPES
from ...engine.plans.caches import RUNTIME, cache_file
from ...engine.plans.machine import Machine
from ...engine.plans.manifest import PlanManifest
from ...engine.plans.profiles import Profile, check_request, check_shapes, profile_of
from ...engine.plans.store import PlanStore
from ..device.cuda import Cuda, Handle
from ..device.engine import Shapes
from ..device.memory import DeviceTensor
from ..flow.tensors import RequestShape, output_specs
from .ports import PortType, disagreements, fixed, wanted_ports
from .tensorrt_log import LibraryLog, as_memory_error, make_logger


class TensorRtEngines:
    """Implements `Engines` by TensorRT or TensorRT-RTX. `plans` are the chosen ones, by component."""

    allocates = False

    def __init__(
        self,
        bundle: Bundle,
        store: PlanStore,
        plans: Mapping[str, PlanManifest],
        flavour: Flavour,
        machine: Machine,
        cuda: Cuda,
    ) -> None:
        target = next(iter(plans.values())).ingredients.target
        gpu = "" if machine.gpu is None else machine.gpu.name  # a portable plan's kernels are finished for this one
        cache = cache_file(bundle.path, RUNTIME, replace(target, gpu=gpu))
        self._bundle, self._store, self._plans = bundle, store, plans
        self._flavour, self._machine, self._cuda = flavour, machine, cuda
        self._log = LibraryLog()
        self._logger = make_logger(flavour.trt, self._log)
        self._runtime: Any = start(  # must outlive its engines
            flavour.name, lambda: flavour.trt.Runtime(self._logger), self._log.errors, as_memory_error
        )
        self._contexts = flavour.contexts(cache)
        self.turn = nullcontext()  # each executor has an arena of its own

    @property
    def name(self) -> str:
        return f"{self._flavour.name} {self._flavour.version}"

    def check(self, shape: RequestShape) -> None:
        model = self._bundle.manifest.model
        for coverage in {plan.ingredients.coverage for plan in self._plans.values()}:
            check_request(
                coverage,
                model,
                grid=shape.grid,
                references=shape.references,
                batch=shape.batch,
                steps=shape.num_steps,
            )

    def open(self, component: str, stream: Handle, streaming_budget: int | None) -> TensorRtEngine:
        plan = self._plans[component]
        self._log.clear()
        with self._store.open(component, plan.key, self._machine, self._flavour.refusal) as opened:
            engine = self._runtime.deserialize_cuda_engine(opened.data)
        if engine is None:
            raise self._log.error(f"{component}: {self.name} could not open its plan {plan.key}", PlanError)
        self._check_ports(component, engine)
        if streaming_budget is not None:
            self._stream_weights(component, engine, streaming_budget)
        profile = profile_of(self._bundle.component(component), plan.ingredients.coverage, self._bundle.manifest.model)
        parts = Parts(
            bundle=self._bundle,
            component=component,
            engine=engine,
            contexts=self._contexts,
            log=self._log,
            cuda=self._cuda,
        )
        return TensorRtEngine(parts, profile, streams=streaming_budget is not None)

    def _stream_weights(self, component: str, engine: Any, budget: int) -> None:
        """Keep on the device what fits a budget together with the memory that streaming itself takes.

        TensorRT adds that to the activations; it depends on what is kept, and is 0 if all is.
        """
        kept = budget
        while kept + (scratch := self._set_budget(component, engine, kept)) > budget and kept:
            kept = max(0, min(budget - scratch, kept - 1))

    def _set_budget(self, component: str, engine: Any, kept: int) -> int:
        """Set how many bytes of weights are kept, and return what streaming the rest takes."""
        with self._log.named(component):
            engine.weight_streaming_budget_v2 = kept  # before any context exists
        if engine.weight_streaming_budget_v2 > kept:  # the property's setter drops the answer
            raise self._log.error(
                f"{component}: TensorRT did not accept {kept:,} bytes for streamed weights", ExecutorError
            )
        return int(engine.weight_streaming_scratch_memory_size)

    def _check_ports(self, component: str, engine: Any) -> None:
        """Raise PlanError unless the engine's inputs and outputs are those of the component table."""
        trt, found = self._flavour.trt, {}
        types = {
            getattr(trt.DataType, one.tensorrt): one.name
            for one in NUMBER_TYPES.values()
            if hasattr(trt.DataType, one.tensorrt or "-")  # older versions lack the newer types
        }
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            dtype = engine.get_tensor_dtype(name)
            found[name] = PortType(
                output=engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT,
                element_type=types.get(dtype, str(dtype)),
                shape=fixed(tuple(engine.get_tensor_shape(name))),
            )
        problems = list(disagreements(wanted_ports(self._bundle, component), found))
        if problems:
            raise PlanError(f"{component}: the plan is not as the bundle says: {'; '.join(problems)}; build it again")

    def before_shrinking(self, forget: Callable[[], None]) -> None:
        """Do nothing: nobody else's `shrink` takes anything."""

    def shrink(self) -> None:
        """Do nothing: activations lie in the executor's own arena."""

    def forget_failure(self) -> None:
        """Do nothing: the library remembers no failure; what failed, answered with False."""

    def close(self) -> None:
        self._contexts.close()
        self._runtime = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Holds an opened engine, and what it takes to run it."""

    bundle: Bundle
    component: str
    engine: Any
    contexts: ContextMaker
    log: LibraryLog
    cuda: Cuda


class TensorRtEngine:
    """Implements `Engine` by an engine of TensorRT or TensorRT-RTX."""

    def __init__(self, parts: Parts, profile: Profile, *, streams: bool) -> None:
        self._parts: Parts | None = parts
        self._profile = profile
        self.capturable = not streams  # with streamed weights an execution waits for the host

    def bind(self, shapes: Shapes) -> TensorRtBound:
        assert self._parts is not None, "a closed engine is not bound"
        check_shapes(self._parts.component, self._profile, shapes)
        return TensorRtBound(self._parts, shapes)

    def close(self) -> None:
        self._parts = None  # the bindings free an engine with its last reference


class TensorRtBound:
    """Implements `Bound` by a context of its own, so that no other shape changes what a graph recorded of it."""

    def __init__(self, parts: Parts, shapes: Shapes) -> None:
        self._component, self._log, self._cuda, self._contexts = parts.component, parts.log, parts.cuda, parts.contexts
        self._arena = (0, 0)
        self._log.clear()
        with self._log.named(parts.component):
            self._context: Any = self._contexts.create(parts.engine)
            self._require(self._context is not None, "made no execution context")
            for name, shape in shapes.items():
                self._require(self._context.set_input_shape(name, shape), f"did not accept {name} {list(shape)}")
            missing = self._context.infer_shapes()
            self._require(not missing, f"lacks the shapes of {', '.join(missing)}")
            for name, spec in output_specs(parts.bundle, parts.component, shapes).items():
                found = tuple(self._context.get_tensor_shape(name))
                self._require(found == spec.shape, f"would write {name} {list(found)}, not {list(spec.shape)}")
            self.activation_bytes = int(self._context.update_device_memory_size_for_shapes())
            self._require(self.activation_bytes > 0 or not self._log.errors(), "did not say what memory it needs")

    def _require(self, ok: bool, what: str) -> None:
        """Raise ExecutorError if TensorRT says with False that something failed; its log says why."""
        if not ok:
            raise self._log.error(f"{self._component}: TensorRT {what}", ExecutorError)

    def recordable(self, stream: Handle) -> bool:
        return self._contexts.recordable(self._context, self._cuda.stream_address(stream))

    def place(self, arena: tuple[int, int]) -> None:
        if self.activation_bytes and arena != self._arena:
            self._context.set_device_memory(*arena)
            self._arena = arena

    def enqueue(self, tensors: Mapping[str, DeviceTensor], stream: Handle) -> None:
        self._log.clear()
        for name, tensor in tensors.items():
            accepted = self._context.set_tensor_address(name, tensor.address)
            self._require(accepted, f"did not accept the address of {name}")
        self._require(self._context.execute_async_v3(self._cuda.stream_address(stream)), "did not start it")

    def close(self) -> None:
        self._context = None
