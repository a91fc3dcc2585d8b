"""Makes the CUDA calls of this package, each checked. Nothing else talks to the CUDA runtime."""

from __future__ import annotations

import importlib
import logging
from typing import Any, Protocol

from ...engine.errors import ExecutorError, GpuMemoryError, MissingDependencyError

logger = logging.getLogger(__name__)

STICKY = frozenset(
    {
        "cudaErrorIllegalAddress",
        "cudaErrorLaunchTimeout",
        "cudaErrorAssert",
        "cudaErrorHardwareStackError",
        "cudaErrorIllegalInstruction",
        "cudaErrorMisalignedAddress",
        "cudaErrorInvalidAddressSpace",
        "cudaErrorInvalidPc",
        "cudaErrorLaunchFailure",
        "cudaErrorECCUncorrectable",
        "cudaErrorNvlinkUncorrectable",
        "cudaErrorContained",
        "cudaErrorTensorMemoryLeak",
    }
)
"""The errors after which every call of the process fails, whatever it does (CUDA Runtime API, cudaError_t)."""


class CudaError(ExecutorError):
    """Reports a CUDA call that failed. `code` is CUDA's own name of the error."""

    def __init__(self, call: str, code: str, words: str) -> None:
        self.code = code
        ending = "; this process cannot use the GPU any more: end it and start another" if self.sticky else ""
        super().__init__(f"{call} failed: {words} ({code}){ending}")

    @property
    def sticky(self) -> bool:
        return self.code in STICKY


class CudaMemoryError(CudaError, GpuMemoryError):
    """Reports a CUDA call that found no memory."""


def cuda_error(call: str, code: str, words: str) -> CudaError:
    """Return the exception of an error code: CudaMemoryError if no memory was found, else CudaError."""
    return (CudaMemoryError if code == "cudaErrorMemoryAllocation" else CudaError)(call, code, words)


Handle = Any
"""A stream, event or graph of cuda-python's."""


class Cuda(Protocol):
    """Makes calls on a device. Addresses are numbers.

    Failures raise CudaError, but for those of `free`, `free_host` and what is named `destroy_...`, which are logged:
    they come after the work.
    """

    @property
    def device(self) -> int: ...
    @property
    def lost(self) -> CudaError | None:
        """The sticky error after which the device is of no use to this process."""
        ...

    def use(self) -> None:
        """Make the device the calling thread's."""
        ...

    def memory(self) -> tuple[int, int]:
        """Return the free bytes and all bytes of the device."""
        ...

    def malloc(self, size_bytes: int) -> int: ...
    def free(self, address: int) -> None: ...
    def malloc_host(self, size_bytes: int) -> int:
        """Allocate page-locked host memory, and return its address."""
        ...

    def free_host(self, address: int) -> None: ...
    def copy(self, to: int, source: int, size_bytes: int, stream: Handle) -> None:
        """Enqueue a copy between any two places; host memory must be page-locked."""
        ...

    def stream(self) -> Handle:
        """Create a stream that does not wait for the default stream."""
        ...

    def stream_address(self, stream: Handle) -> int: ...
    def synchronize(self, stream: Handle) -> None: ...
    def destroy_stream(self, stream: Handle) -> None: ...
    def event(self) -> Handle: ...
    def record(self, event: Handle, stream: Handle) -> None:
        """Enqueue an event; in a capture, a node that records it at every launch."""
        ...

    def follow(self, stream: Handle, other: Handle, event: Handle) -> None:
        """Let what is enqueued on a stream from now on wait for what is on another, by an event that may be used again.

        If the other is recorded, the stream is too, until the capture ends; the other must follow it before that.
        """
        ...

    def milliseconds(self, start: Handle, end: Handle) -> float: ...
    def destroy_event(self, event: Handle) -> None: ...
    def begin_capture(self, stream: Handle, *, relaxed: bool) -> None:
        """Record what is enqueued on a stream instead of running it.

        Calls of this thread that could disturb a capture, such as allocations, fail unless it is `relaxed`.
        """
        ...

    def end_capture(self, stream: Handle) -> Handle:
        """End a capture and return its graph. It must be called after `begin_capture`, whatever happened between."""
        ...

    def instantiate(self, graph: Handle) -> Handle:
        """Make an executable of a graph. The graph stays the caller's to destroy."""
        ...

    def destroy_graph(self, graph: Handle) -> None: ...

    def launch(self, executable: Handle, stream: Handle) -> None: ...
    def destroy_executable(self, executable: Handle) -> None: ...
    def clear_error(self) -> None:
        """Forget an error that did no lasting harm."""
        ...


class CudaPython:
    """Implements `Cuda` with cuda-python.

    Raises MissingDependencyError without cuda-python, CudaError without a GPU or such a device.
    """

    def __init__(self, device: int = 0) -> None:
        try:
            runtime: Any = importlib.import_module("cuda.bindings.runtime")
        except ImportError as error:
            raise MissingDependencyError(
                "cuda-python is not installed; install it with: pip install cuda-python"
            ) from error
        self._runtime = runtime
        self._kind = runtime.cudaMemcpyKind.cudaMemcpyDefault
        self.device = device
        self.lost: CudaError | None = None
        self.use()

    def _call(self, name: str, *arguments: Any) -> Any:
        """Make a call, and return its results less the status: the only one, or a tuple.

        Raises CudaError if the call failed.
        """
        status, *results = getattr(self._runtime, name)(*arguments)
        if status != self._runtime.cudaError_t.cudaSuccess:
            _, words = self._runtime.cudaGetErrorString(status)
            error = cuda_error(name, status.name, words.decode() if isinstance(words, bytes) else str(words))
            if error.sticky:
                self.lost = error
            raise error
        return results[0] if len(results) == 1 else tuple(results)

    def _release(self, name: str, handle: Any) -> None:
        try:
            self._call(name, handle)
        except CudaError as error:
            logger.warning("%s", error)

    def use(self) -> None:
        self._call("cudaSetDevice", self.device)

    def memory(self) -> tuple[int, int]:
        free, total = self._call("cudaMemGetInfo")
        return int(free), int(total)

    def malloc(self, size_bytes: int) -> int:
        return int(self._call("cudaMalloc", size_bytes))

    def free(self, address: int) -> None:
        self._release("cudaFree", address)

    def malloc_host(self, size_bytes: int) -> int:
        return int(self._call("cudaMallocHost", size_bytes))

    def free_host(self, address: int) -> None:
        self._release("cudaFreeHost", address)

    def copy(self, to: int, source: int, size_bytes: int, stream: Handle) -> None:
        self._call("cudaMemcpyAsync", to, source, size_bytes, self._kind, stream)

    def stream(self) -> Handle:
        return self._call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking)

    def stream_address(self, stream: Handle) -> int:
        return int(stream)

    def synchronize(self, stream: Handle) -> None:
        self._call("cudaStreamSynchronize", stream)

    def destroy_stream(self, stream: Handle) -> None:
        self._release("cudaStreamDestroy", stream)

    def event(self) -> Handle:
        return self._call("cudaEventCreate")

    def record(self, event: Handle, stream: Handle) -> None:
        captures = self._runtime.cudaStreamCaptureStatus.cudaStreamCaptureStatusActive
        capturing = self._call("cudaStreamIsCapturing", stream) == captures
        flags = self._runtime.cudaEventRecordExternal if capturing else self._runtime.cudaEventRecordDefault
        self._call("cudaEventRecordWithFlags", event, stream, flags)

    def follow(self, stream: Handle, other: Handle, event: Handle) -> None:
        self._call("cudaEventRecord", event, other)
        self._call("cudaStreamWaitEvent", stream, event, self._runtime.cudaEventWaitDefault)

    def milliseconds(self, start: Handle, end: Handle) -> float:
        return float(self._call("cudaEventElapsedTime", start, end))

    def destroy_event(self, event: Handle) -> None:
        self._release("cudaEventDestroy", event)

    def begin_capture(self, stream: Handle, *, relaxed: bool) -> None:
        modes = self._runtime.cudaStreamCaptureMode
        mode = modes.cudaStreamCaptureModeRelaxed if relaxed else modes.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: Handle) -> Handle:
        return self._call("cudaStreamEndCapture", stream)

    def instantiate(self, graph: Handle) -> Handle:
        return self._call("cudaGraphInstantiate", graph, 0)

    def destroy_graph(self, graph: Handle) -> None:
        self._release("cudaGraphDestroy", graph)

    def launch(self, executable: Handle, stream: Handle) -> None:
        self._call("cudaGraphLaunch", executable, stream)

    def destroy_executable(self, executable: Handle) -> None:
        self._release("cudaGraphExecDestroy", executable)

    def clear_error(self) -> None:
        self._runtime.cudaGetLastError()
