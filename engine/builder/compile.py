"""Runs one compilation: graph and weights in, plan out. It has a process of its own (see `compile_process`)."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bundle.graph_file import GraphFile, map_weights
from ..bundle.shared_file import SharedFile
from ..errors import BuildError, KontextError
from ..flavour import Flavour, FlavourName, load_flavour
from ..flavour.start import start
from ..plans.options import BuildOptions, Compatibility, Refit
from ..plans.profiles import Profile, ShapeRange
from ..plans.targets import Target
from .callbacks import BuildProgress, OnFraction, make_logger, make_monitor, make_writer
from .timing_cache import attach_timings, merge_timings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileJob:
    """Says what to compile, for what, and where the plan goes.

    Attributes:
        component: The component's name.
        graph: The file of the graph.
        plan: The file to write.
        log: The file that gets everything that the compiler says.
        target: The library and the GPU that the plan is for.
        profile: The shape range of each input.
        options: How the plan is built.
        timing_cache: The timing cache, None to use none.
        device: The number of the GPU to build on, None if the flavour needs none.
    """

    component: str
    graph: Path
    plan: Path
    log: Path
    target: Target
    profile: Mapping[str, ShapeRange]
    options: BuildOptions
    timing_cache: SharedFile | None = None
    device: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """Describes a plan that was written.

    Attributes:
        size_bytes: The size of the plan.
        chunked_sha256: The hash of the plan (`ChunkedHash`).
        seconds: The time that it took.
        layers: An engine inspector's JSON, where the log does not list the layers; "" where it does.
        activation_bytes: What the engine needs beside its weights, where the log does not say it; 0 where it does.
    """

    size_bytes: int
    chunked_sha256: str
    seconds: float
    layers: str = ""
    activation_bytes: int = 0


def compile_plan(job: CompileJob, on_fraction: OnFraction) -> Compiled:
    """Compile a graph, and write the plan.

    Args:
        job: What to compile.
        on_fraction: Is told what part of the build is done.

    Raises:
        BuildError: The compiler refused, with its own last words as the message; the log has the rest.
    """
    begin = time.perf_counter()
    flavour = load_flavour(FlavourName(job.target.flavour))
    trt = flavour.trt
    with job.log.open("a", buffering=1) as log, job.plan.open("wb") as plan:
        words = make_logger(trt, log)
        builder = start(flavour.name, lambda: trt.Builder(words), lambda: words.errors, BuildError)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, words)
        graph = GraphFile.read(job.graph)
        held = _parse(flavour, parser, graph, words)
        flavour.allow_decomposed_attention(network)
        config = _configure(flavour, builder, job, words)
        _add_profile(builder, config, network, job.profile)
        progress = BuildProgress(sum(place.size_bytes for place in graph.weights.values()), on_fraction)
        config.progress_monitor = make_monitor(trt, progress)
        timings = attach_timings(config, job.timing_cache) if job.timing_cache else None
        writer = make_writer(flavour.stream_writer, plan, progress)
        built = flavour.serialize(builder, network, config, writer)
        if writer.error is not None:
            raise BuildError(f"writing the plan failed: {writer.error}")
        _require(built, "building", words)
        if job.timing_cache:
            _keep_timings(config, job.timing_cache)
        del parser, network, builder, held, timings  # weights go last: the others point to them
        listed = words.tells_layers and not words.leaves_types_untold
        digest = writer.digest.hexdigest()
        size = writer.digest.size_bytes
    layers, activations = ("", 0) if listed or flavour.ahead_of_time else _inspect(flavour, job)
    seconds = time.perf_counter() - begin
    return Compiled(
        size_bytes=size, chunked_sha256=digest, seconds=seconds, layers=layers, activation_bytes=activations
    )


def _keep_timings(config: Any, stored: SharedFile) -> None:
    """Keep the timings. A cache that cannot be written costs the next build time, not this one its plan."""
    try:
        merge_timings(config, stored)
    except (KontextError, OSError) as error:
        logger.warning("the timing cache %s could not be kept: %s", stored.path, error)


def _require(ok: Any, what: str, words: Any) -> None:
    """Raise BuildError with the compiler's words if a call failed.

    TensorRT says with False or None that it failed, and in its log why.
    """
    if not ok:
        raise BuildError("\n".join(words.errors) or f"{what} failed, and the compiler did not say why")


def _parse(flavour: Flavour, parser: Any, graph: GraphFile, words: Any) -> object:
    """Parse a graph, and return what must live until the plan is built."""
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
    else:
        flavour.make_recordable(config)
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


def _inspect(flavour: Flavour, job: CompileJob) -> tuple[str, int]:
    """Return the finished engine's own account of its layers, and the bytes of its activations.

    It needs the GPU. The account is of the shapes that the plan is best at: of dynamic ones it would not tell types.
    """
    trt = flavour.trt
    runtime = start(flavour.name, lambda: trt.Runtime(trt.Logger(trt.Logger.ERROR)), tuple, BuildError)
    engine = runtime.deserialize_cuda_engine(job.plan.read_bytes())
    if engine is None:
        raise BuildError("the finished plan could not be opened for inspection")
    inspector = engine.create_engine_inspector()
    context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    if context is not None:
        for name, shapes in job.profile.items():
            context.set_input_shape(name, shapes.opt)
        inspector.execution_context = context
    layers = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    return layers, int(engine.device_memory_size_v2)
