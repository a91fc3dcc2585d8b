"""Measures this project's own part of a benchmark in a process of its own, so that cold means cold.

The parent starts it with `run_engine`; what it finds comes back in a file.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from ...engine.bundle.bundle import Bundle
from ...engine.components import COMPONENTS, DENOISER
from ...engine.errors import ExecutorError, KontextError
from ...engine.system.memory import peak_resident_bytes
from ...runtime.device.executor import DeviceExecutor
from ...runtime.executors.options import ExecutorName
from ...runtime.inputs.pictures import read_picture
from ...runtime.inputs.request import Request
from ...runtime.kontext import Kontext
from ...runtime.outputs.result import Output, Result
from .agreement import likeness
from .child import ChildError, end_with_parent, run_child
from .nvml import GpuSampler
from .records import PICTURES_DIFFER, Case, ComponentMemory, EngineRun, Memory, Spread
from .request import request_of

ENGINE = "kontext-trt"
LONGEST_NOTE = 160
DEVICES_APART = "memory is that of the process that asks the devices, without theirs"
_CHILD = (
    "import sys, time\nstart = time.perf_counter()\nimport kontext_trt; kontext_trt.Kontext\n"
    "imported = 1e3 * (time.perf_counter() - start)\n"
    "from kontext_trt.benchmarks.bench.engine_process import main\nmain(sys.argv[1], imported)"
)


class EngineJob(msgspec.Struct, frozen=True, kw_only=True):
    """Says what to measure; `picture` is where the first picture goes, `result` where what was found does."""

    bundle: Path
    executor: ExecutorName
    devices: tuple[int, ...] = ()
    vram_bytes: int | None
    graphs: bool
    case: Case
    image: Path | None
    repeat: int
    picture: Path
    result: Path


def run_engine(job: EngineJob) -> EngineRun:
    """Measure in a child process, which prints into a log beside the result.

    Raises:
        ExecutorError: It fails; the message has its last words.
    """
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "job.json"
        file.write_bytes(msgspec.json.encode(job, enc_hook=str))
        try:
            anonymous = run_child("-c", _CHILD, str(file), log=job.result.with_suffix(".log"))
        except ChildError as error:
            raise ExecutorError(f"the measured process {error}") from error
    run = msgspec.json.decode(job.result.read_bytes(), type=EngineRun)
    return msgspec.structs.replace(run, memory=msgspec.structs.replace(run.memory, host_anonymous=anonymous))


def main(job_file: str, import_ms: float) -> None:
    """Measure the job of a file and write what was found; `import_ms` is what importing took before."""
    end_with_parent()
    job = msgspec.json.decode(Path(job_file).read_bytes(), type=EngineJob, dec_hook=lambda kind, value: kind(value))
    try:
        run = measure(job, import_ms)
    except KontextError as error:
        sys.exit(str(error))
    job.result.write_bytes(msgspec.json.encode(run))


def measure(job: EngineJob, import_ms: float) -> EngineRun:
    """Run one request in the cold, two more in which graphs are recorded, and `repeat` warm ones.

    The caches of prompts and references are emptied before each. Pictures that differ in bits are noted: a decoder's
    convolutions may add up in any order.

    Raises:
        ExecutorError: A seed's latents are not all the same, bit for bit, or its pictures not alike: such times are
            worth nothing.
    """
    image = None if job.image is None else read_picture(job.image)
    with GpuSampler() as gpu, heard_warnings() as warned:
        start = time.perf_counter()
        options = job.executor.options(job.vram_bytes, graphs=job.graphs, devices=job.devices)
        with Kontext.open(job.bundle, executor=options) as kontext:
            opened = time.perf_counter()
            components = _load(kontext)
            loaded = time.perf_counter()
            gpu.forget_peak()
            first, first_ms = timed(kontext, request_of(job.case, image))
            free = _free_bytes(kontext)
            # graphs of the whole, or if that cannot be, of its parts
            recording = [timed(kontext, request_of(job.case, image)) for _ in range(2)]
            graphs = None if free is None else max(0, free - (_free_bytes(kontext) or 0))
            gpu.forget()
            warm = [timed(kontext, request_of(job.case, image)) for _ in range(job.repeat)]
            clocks = gpu.clocks()
            memory = _memory(kontext, components, graphs)
    for result, _ in (*recording, *warm):
        if not all(map(_same, result.outputs, first.outputs)):
            raise ExecutorError("one seed gave different pictures: these times are worth nothing")
    pictures = _equal_pictures([first, *(result for result, _ in (*recording, *warm))])
    on_device = isinstance(kontext.executor, DeviceExecutor)
    if on_device and gpu.used_bytes is not None and gpu.first_bytes is not None:
        memory = msgspec.structs.replace(memory, device_peak=gpu.used_bytes - gpu.first_bytes)
    first.outputs[0].image.save(job.picture)
    return EngineRun(
        engine=ENGINE,
        executor=kontext.executor.name,
        devices=job.devices,
        bundle=kontext.bundle.fingerprint,
        precision=precision_of(kontext.bundle),
        cold={
            "import": import_ms,
            "open": 1e3 * (opened - start),
            "load": 1e3 * (loaded - opened),
            "first request": first_ms,
            "second request": recording[0][1],
            "third request": recording[1][1],
        },
        warm=spreads(warm),
        memory=memory,
        clocks=clocks if on_device else None,
        notes=(
            *(() if job.graphs else ("without CUDA graphs",)),
            *((DEVICES_APART,) if job.devices else ()),
            *(() if pictures else (PICTURES_DIFFER,)),
            *dict.fromkeys(warned),
        ),
    )


class _Listener(logging.Handler):
    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        self._heard.append(_shortened(record.getMessage()))


@contextmanager
def heard_warnings() -> Iterator[list[str]]:
    """Collect what is warned of meanwhile, by the warnings module or the log; the list is whole at the end."""
    heard: list[str] = []
    listener, logger = _Listener(heard), logging.getLogger("kontext_trt")
    logger.addHandler(listener)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield heard
            heard += [_shortened(str(one.message)) for one in warned]
    finally:
        logger.removeHandler(listener)


def _shortened(words: str) -> str:
    line = " ".join(words.split())
    return line if len(line) <= LONGEST_NOTE else f"{line[: LONGEST_NOTE - 3]}..."


def precision_of(bundle: Bundle) -> str:
    """Return the denoiser's precision, or its recipe if it is quantized."""
    graph = bundle.graph(DENOISER)
    return graph.precision.value if graph.quantization is None else graph.quantization.recipe


def spreads(warm: list[tuple[Result, float]]) -> dict[str, Spread]:
    """Return the spread, in ms, of each part of the requests.

    The parts are the request as its caller waits for it, each stage, single steps, and what no stage accounts for.
    """
    values: dict[str, list[float]] = {"total": [milliseconds for _, milliseconds in warm]}
    for result, milliseconds in warm:
        stages = {name: value for name, value in result.milliseconds.items() if name != "total"}
        for name, value in stages.items():
            values.setdefault(name, []).append(value)
        values.setdefault("host_gap", []).append(milliseconds - sum(stages.values()))
        values.setdefault("step", []).extend(result.step_milliseconds)
    return {name: Spread.of(measured) for name, measured in values.items()}


def timed(kontext: Kontext, request: Request) -> tuple[Result, float]:
    """Return what a request gave, whose prompt and references nothing remembers, and its milliseconds."""
    kontext.forget()
    start = time.perf_counter()
    result = kontext.run(request)
    return result, 1e3 * (time.perf_counter() - start)


def _same(one: Output, other: Output) -> bool:
    alike = likeness(np.asarray(one.image), np.asarray(other.image)).agree
    return alike and np.array_equal(one.latents, other.latents)


def _equal_pictures(results: Iterable[Result]) -> bool:
    return len({tuple(np.asarray(output.image).tobytes() for output in one.outputs) for one in results}) == 1


def _load(kontext: Kontext) -> Mapping[str, ComponentMemory]:
    """Load one component after another; on a device, return what each takes."""
    executor = kontext.executor
    found: dict[str, ComponentMemory] = {}
    for name in COMPONENTS:
        before = _free_bytes(kontext)
        executor.load(name)
        after = _free_bytes(kontext)
        if isinstance(executor, DeviceExecutor) and before is not None and after is not None:
            cost = executor.residency.costs[name]
            found[name] = ComponentMemory(weights=before - after, reckoned=cost.weights + cost.activations)
    return found


def _free_bytes(kontext: Kontext) -> int | None:
    return kontext.executor.free_bytes() if isinstance(kontext.executor, DeviceExecutor) else None


def _memory(kontext: Kontext, components: Mapping[str, ComponentMemory], graphs: int | None) -> Memory:
    held = kontext.executor.held_bytes if isinstance(kontext.executor, DeviceExecutor) else {}
    return Memory(
        components=components,
        arena=held.get("arena"),
        buffers=held.get("buffers"),
        graphs=graphs,
        device_peak=None,
        host_peak=peak_resident_bytes(),
        host_anonymous=0,  # the parent samples it
    )
