"""One compilation: graph and weights in, plan out. Runs in a process of its own (see `compile_process`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .build_options import BuildOptions, Compatibility, Refit
from .chunked_hash import ChunkedHash
from .errors import BuildError
from .flavour import Flavour, FlavourName, load_flavour
from .graph_file import GraphFile, map_weights
from .profiles import Profile, ShapeRange
from .targets import Target
from .timing_cache import attach_timings, merge_timings

OnFraction = Callable[[float], None]
"""Told what part of the build is done, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileJob:
    """`plan` is the file to write; `log` gets everything that the compiler says."""

    component: str
    graph: Path
    plan: Path
    log: Path
    target: Target
    profile: Mapping[str, ShapeRange]
    options: BuildOptions
    timing_cache: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """`layers` is an engine inspector's JSON, where the log does not list the layers ("" where it does)."""

    size_bytes: int
    chunked_sha256: str
    seconds: float
    layers: str = ""


def compile_plan(job: CompileJob, on_fraction: OnFraction) -> Compiled:
    """Raises BuildError with the compiler's own last words if it refuses; the log has the rest."""
    start = time.perf_counter()
    flavour = load_flavour(FlavourName(job.target.flavour))
    trt = flavour.trt
    with job.log.open("a", buffering=1) as log, job.plan.open("wb") as plan:
        words = _make_logger(trt, log)
        builder = trt.Builder(words)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, words)
        graph = GraphFile.read(job.graph)
        held = _parse(flavour, parser, graph, words)
        flavour.allow_decomposed_attention(network)
        config = _configure(flavour, builder, job, words)
        _add_profile(builder, config, network, job.profile)
        config.progress_monitor = _make_monitor(trt, on_fraction)
        timings = attach_timings(config, job.timing_cache) if job.timing_cache else None
        writer = _make_writer(trt, plan)
        built = builder.build_serialized_network_to_stream(network, config, writer)
        if writer.error is not None:
            raise BuildError(f"writing the plan failed: {writer.error}")
        _require(built, "building", words)
        if job.timing_cache:
            merge_timings(config, job.timing_cache)
        del held, timings
        listed = words.lists_layers
        digest = writer.digest.hexdigest()
        size = writer.digest.size_bytes
    layers = "" if listed or flavour.ahead_of_time else _inspect(trt, job.plan)
    return Compiled(size_bytes=size, chunked_sha256=digest, seconds=time.perf_counter() - start, layers=layers)


def _require(ok: Any, what: str, words: Any) -> None:
    """TensorRT says with False or None that it failed, and in its log why."""
    if not ok:
        raise BuildError("\n".join(words.errors) or f"{what} failed, and the compiler did not say why")


def _parse(flavour: Flavour, parser: Any, graph: GraphFile, words: Any) -> object:
    """Returns what must live until the plan is built."""
    if not flavour.weights_by_pointer:
        _require(parser.parse_from_file(str(graph.path)), "parsing", words)
        return None
    weights = map_weights(graph)
    _require(parser.load_model_proto(graph.data, str(graph.path)), "parsing", words)
    for name, data in weights.items():
        _require(parser.load_initializer(name, data.ctypes.data, data.nbytes), f"giving {name}", words)
    _require(parser.parse_model_proto(), "parsing", words)
    return weights


def _configure(flavour: Flavour, builder: Any, job: CompileJob, words: Any) -> Any:
    trt, options = flavour.trt, job.options
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else the census could not count by type
    flavour.set_capability(config, job.target.capability)
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.max_aux_streams is not None:
        config.max_aux_streams = options.max_aux_streams
    if options.refit is not Refit.NONE:
        flags = {Refit.FULL: trt.BuilderFlag.REFIT, Refit.IDENTICAL: trt.BuilderFlag.REFIT_IDENTICAL}
        config.set_flag(flags[options.refit])
    if options.strip:
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
    if options.weight_streaming:
        config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)
    if options.compatibility is not Compatibility.NONE:
        config.hardware_compatibility_level = flavour.compatibility_flags()[options.compatibility.value]
    return config


def _add_profile(builder: Any, config: Any, network: Any, profile: Profile) -> None:
    optimization = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        name = network.get_input(index).name
        shapes = profile[name]
        optimization.set_shape(name, shapes.min, shapes.opt, shapes.max)
    if config.add_optimization_profile(optimization) < 0:
        ranges = ", ".join(f"{name} {list(shapes.min)} to {list(shapes.max)}" for name, shapes in profile.items())
        raise BuildError(f"the compiler did not accept the shape range {ranges}")


def _inspect(trt: Any, plan: Path) -> str:
    """The finished engine's own account of its layers. Needs the GPU."""
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(plan.read_bytes())
    if engine is None:
        raise BuildError("the finished plan could not be opened for inspection")
    return engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)


def _make_logger(trt: Any, log: Any) -> Any:
    class BuildLog(trt.ILogger):
        """Writes everything to the log file, and remembers errors."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.lists_layers = False

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)
            self.lists_layers |= ", LayerType: " in message
            log.write(f"{message}\n")

    return BuildLog()


def _make_writer(trt: Any, file: BinaryIO) -> Any:
    class PlanWriter(trt.IStreamWriter):
        """Takes the plan as it is serialized. A short return makes the compiler stop."""

        def __init__(self) -> None:
            trt.IStreamWriter.__init__(self)
            self.digest = ChunkedHash()
            self.error: OSError | None = None

        def write(self, data: bytes) -> int:
            try:
                file.write(data)
            except OSError as error:  # a full disk; an exception must not cross into the compiler
                self.error = error
                return 0
            self.digest.update(data)
            return len(data)

    return PlanWriter()


def _make_monitor(trt: Any, on_fraction: OnFraction) -> Any:
    class Monitor(trt.IProgressMonitor):
        """Nested phases of so many steps each, as one fraction."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: dict[str, list[int]] = {}  # in the order in which they nest: name -> [done, of]

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.phases[phase_name] = [0, max(num_steps, 1)]

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.phases:
                self.phases[phase_name][0] = step + 1
            on_fraction(self.fraction())
            return True

        def phase_finish(self, phase_name: str) -> None:
            self.phases.pop(phase_name, None)

        def fraction(self) -> float:
            done, share = 0.0, 1.0
            for finished, total in self.phases.values():
                done += share * min(finished / total, 1.0)
                share /= total
            return min(done, 1.0)

    return Monitor()
