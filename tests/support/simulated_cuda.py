"""A CUDA device of host memory: counts calls, checks that every address is in a living allocation, fails on demand.

Work on a stream is done when the stream is synchronised, not when it is enqueued, so that what forgets to wait reads
stale bytes. Freed memory is overwritten.
"""

from __future__ import annotations

import ctypes
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from kontext_trt.runtime.device.cuda import CudaError, cuda_error

POISON = 0xA5


@dataclass
class Stream:
    pending: list[Callable[[], None]] = field(default_factory=list)
    capture: list[Callable[[], None]] | None = None
    broken: bool = False
    origin: bool = False
    """Whether the capture began with this stream; others are in it because they follow one that is."""
    apart: bool = False
    """Whether it is such another, which none in the capture has followed since."""


@dataclass
class Event:
    time: float = 0.0
    alive: bool = True


@dataclass
class Graph:
    work: list[Callable[[], None]]
    alive: bool = True


class SimulatedCuda:
    """See `Cuda`. `fail` makes a call fail; `calls` counts them; `memory_bytes` is what can be allocated."""

    def __init__(self, memory_bytes: int = 4 << 30) -> None:
        self.device = 0
        self.lost: CudaError | None = None
        self.calls: Counter[str] = Counter()
        self.memory_bytes = memory_bytes
        self._blocks: dict[int, tuple[np.ndarray, int]] = {}
        self._host: dict[int, tuple[np.ndarray, int]] = {}
        self._failures: list[tuple[str, int, str]] = []
        self.open_handles = 0
        self.peak = 0
        self.streams: list[Stream] = []

    def fail(self, call: str, after: int = 0, code: str = "cudaErrorMemoryAllocation") -> None:
        """Let one later call fail: the one after `after` further ones."""
        self._failures.append((call, self.calls[call] + after, code))

    def _count(self, call: str) -> None:
        if self.lost is not None:
            raise self.lost
        number = self.calls[call]
        self.calls[call] += 1
        for failure in list(self._failures):
            if failure[:2] == (call, number):
                self._failures.remove(failure)
                self.calls["failed"] += 1
                error = cuda_error(call, failure[2], "simulated")
                if error.sticky:
                    self.lost = error
                raise error

    def use(self) -> None:
        self._count("use")

    @property
    def allocated(self) -> int:
        return sum(size for _, size in self._blocks.values())

    def memory(self) -> tuple[int, int]:
        return self.memory_bytes - self.allocated, self.memory_bytes

    def malloc(self, size_bytes: int) -> int:
        self._count("malloc")
        if self.allocated + size_bytes > self.memory_bytes:
            raise cuda_error("malloc", "cudaErrorMemoryAllocation", "out of memory")
        return self._allocate(self._blocks, size_bytes)

    def malloc_host(self, size_bytes: int) -> int:
        self._count("malloc_host")
        return self._allocate(self._host, size_bytes)

    def _allocate(self, blocks: dict[int, np.ndarray], size_bytes: int) -> int:
        assert size_bytes > 0
        memory = np.full(size_bytes + 256, POISON, np.uint8)
        address = -(-memory.ctypes.data // 256) * 256
        blocks[address] = memory, size_bytes
        self.peak = max(self.peak, self.allocated)
        return address

    def free(self, address: int) -> None:
        if self.lost is not None:
            return  # fails, and says so in the log
        for stream in self.streams:
            assert not stream.pending, "memory is freed while work is enqueued"
        self._blocks.pop(address)[0][:] = POISON

    def free_host(self, address: int) -> None:
        self._host.pop(address)

    def check(self, address: int, size_bytes: int) -> None:
        """Raise what a kernel would run into if it touched these bytes."""
        for start, (_, allocated) in (*self._blocks.items(), *self._host.items()):
            if start <= address and address + size_bytes <= start + allocated:
                return
        self.lost = cuda_error("kernel", "cudaErrorIllegalAddress", f"{size_bytes} bytes at {address:#x}")
        raise self.lost

    def copy(self, to: int, source: int, size_bytes: int, stream: Stream) -> None:
        self._count("copy")

        def move() -> None:
            self.check(to, size_bytes)
            self.check(source, size_bytes)
            ctypes.memmove(to, source, size_bytes)

        self.enqueue(move, stream)

    def enqueue(self, work: Callable[[], None], stream: Stream) -> None:
        """Into the stream, or into what is being recorded of it."""
        (stream.pending if stream.capture is None else stream.capture).append(work)

    def stream(self) -> Stream:
        self._count("stream")
        self.open_handles += 1
        self.streams.append(Stream())
        return self.streams[-1]

    def stream_address(self, stream: Stream) -> int:
        return id(stream)

    def stream_at(self, address: int) -> Stream:
        return next(stream for stream in self.streams if id(stream) == address)

    def synchronize(self, stream: Stream) -> None:
        assert stream.capture is None, "a stream cannot be waited for while it is recorded"
        self._count("synchronize")
        while stream.pending:
            stream.pending.pop(0)()

    def destroy_stream(self, stream: Stream) -> None:
        self.open_handles -= 1
        self.streams.remove(stream)

    def event(self) -> Event:
        self._count("event")
        self.open_handles += 1
        return Event()

    def record(self, event: Event, stream: Stream) -> None:
        self._count("record")

        def tick() -> None:
            assert event.alive
            event.time = time.perf_counter()

        self.enqueue(tick, stream)

    def follow(self, stream: Stream, other: Stream, event: Event) -> None:
        self._count("follow")
        assert event.alive
        if other.capture is not None:
            assert stream.capture in (None, other.capture), "streams of two captures follow each other"
            stream.capture = other.capture
            stream.apart, other.apart = not stream.origin, False
            return
        assert stream.capture is None, "what is recorded waits for what is not"
        before = list(other.pending)

        def catch_up() -> None:
            for work in before:
                if work in other.pending:
                    other.pending.remove(work)
                    work()

        self.enqueue(catch_up, stream)

    def milliseconds(self, start: Event, end: Event) -> float:
        assert start.alive
        assert end.alive
        return 1e3 * (end.time - start.time)

    def destroy_event(self, event: Event) -> None:
        event.alive = False
        self.open_handles -= 1

    @property
    def recording(self) -> bool:
        return any(stream.capture is not None for stream in self.streams)

    def begin_capture(self, stream: Stream, *, relaxed: bool) -> None:
        self._count("begin_capture")
        stream.capture, stream.broken, stream.origin = [], False, True

    def break_capture(self, stream: Stream) -> None:
        """What a call that must not be recorded does to a capture."""
        stream.broken = True

    def end_capture(self, stream: Stream) -> Graph:
        work = stream.capture
        with_it = [one for one in self.streams if work is not None and one.capture is work]
        apart = any(one.apart for one in with_it)
        for one in with_it:
            one.capture, one.apart, one.origin = None, False, False
        self._count("end_capture")
        if work is None:
            raise cuda_error("end_capture", "cudaErrorIllegalState", "nothing is recorded")
        if apart:
            raise cuda_error("end_capture", "cudaErrorStreamCaptureUnjoined", "simulated")
        if stream.broken:
            raise cuda_error("end_capture", "cudaErrorStreamCaptureInvalidated", "simulated")
        self.open_handles += 1
        return Graph(work)

    def instantiate(self, graph: Graph) -> Graph:
        self._count("instantiate")
        self.open_handles += 1
        return Graph(list(graph.work))

    def launch(self, executable: Graph, stream: Stream) -> None:
        self._count("launch")

        def replay() -> None:
            assert executable.alive, "a graph is destroyed while it runs"
            for work in executable.work:
                work()

        self.enqueue(replay, stream)

    def destroy_executable(self, executable: Graph) -> None:
        executable.alive = False
        self.open_handles -= 1

    def destroy_graph(self, graph: Graph) -> None:
        self.open_handles -= 1

    def clear_error(self) -> None:
        self.calls["clear_error"] += 1
