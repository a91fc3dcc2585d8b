"""Shares one arena of device memory among sessions of ONNX Runtime, which never run at the same time.

With an arena each, what every session took at most adds up. The shared one is the process's: ONNX Runtime keeps it when
the last session is gone, so it is emptied by hand. Recorded graphs use what lies free in it: who opened bundles on a
device takes turns, and all drop their graphs before it is emptied.

The arena grows by what is asked for, in pieces that never join, so one is reserved first: the decoder of a 1024x1024
picture uses 1.25 GiB at a time, and took an arena of 2.1 GiB without.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .onnxruntime_session import SILENT, device_option, import_onnxruntime

if TYPE_CHECKING:
    import onnxruntime

logger = logging.getLogger(__name__)

SESSION_OPTIONS = {
    "session.use_env_allocators": "1",
    # weights in memory of their own: a recorded graph uses what lies free in the arena
    "session.use_device_allocator_for_initializers": "1",
}
"""The options of a session that uses the shared arena."""
_SAME_AS_REQUESTED = 1
_IDENTITY = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a"
    "0a08080112040a020801620f0a0179120a0a08080112040a02080142040a00100d"
)
"""A graph that gives its one float back: its run empties the arena."""
_INPUT: Any = {"x": np.zeros(1, np.float32)}
_BYTES = bytes.fromhex(
    "080812003a540a2f0a016e120179220f436f6e7374616e744f6653686170652a160a0576616c7565"
    "2a0a080110022a0100420176a001041201675a0f0a016e120a0a08080712040a020801620d0a0179"
    "12080a06080212020a0042040a00100d"
)
"""A graph that gives as many zeros of one byte as its input says."""


class ArenaUsers:
    """Holds who uses the arena of a device in this process.

    Attributes:
        turn: The lock that is held by whoever runs sessions, or a graph of them.
    """

    def __init__(self) -> None:
        self.turn = threading.RLock()
        self._forgetting: list[weakref.WeakMethod[Callable[[], None]]] = []

    def add(self, forget: Callable[[], None]) -> None:
        """Call a bound method before the arena is emptied, from now on, as long as its object lives."""
        self._forgetting.append(weakref.WeakMethod(forget))

    def forget(self) -> None:
        """Call what was added: no graph of before may be launched."""
        living = [(one, method) for one in self._forgetting if (method := one()) is not None]
        self._forgetting = [one for one, _ in living]
        for _, method in living:
            method()


@cache
def arena_users(device: int) -> ArenaUsers:
    """Return who uses the arena of a device."""
    return ArenaUsers()


@cache
def share_arena(device: int) -> None:
    """Make the arena of a device, once in a process."""
    ort = import_onnxruntime()
    info = ort.OrtMemoryInfo("Cuda", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, device, ort.OrtMemType.DEFAULT)
    config = ort.OrtArenaCfg({"arena_extend_strategy": _SAME_AS_REQUESTED})
    ort.create_and_register_allocator_v2("CUDAExecutionProvider", info, {"device_id": str(device)}, config)


class Emptier:
    """Gives back what lies free in the arena of a device.

    It is made, and runs once, while there is memory: its session needs some, cuBLAS some more in the session's first
    run, and where it is called for there may be none.

    Args:
        device: The number of the device.
    """

    def __init__(self, device: int) -> None:
        self._users, self._session = arena_users(device), _session(_IDENTITY, device)
        run_options = import_onnxruntime().RunOptions
        self._run = run_options()
        self._run.add_run_config_entry("memory.enable_memory_arena_shrinkage", f"gpu:{device}")
        with self._users.turn:
            self._session.run(None, _INPUT, run_options())

    def __call__(self) -> None:
        """Empty the arena when all who use it have dropped their graphs. A failure is logged, not raised."""
        with self._users.turn:
            self._users.forget()
            try:
                self._session.run(None, _INPUT, self._run)
            except Exception as error:  # ONNX Runtime has an exception type per status code
                words = str(error).strip().splitlines() or [type(error).__name__]
                logger.warning("ONNX Runtime does not give back the memory that it keeps: %s", words[0])


def reserve_arena(device: int, size_bytes: int) -> None:
    """Make the arena of a device hold a free piece of so many bytes, in which what is taken and given back joins."""
    session = _session(_BYTES, device)
    binding = session.io_binding()
    binding.bind_cpu_input("n", np.array([size_bytes], np.int64))
    binding.bind_output("y", "cuda", device)
    session.run_with_iobinding(binding)


def _session(graph: bytes, device: int) -> onnxruntime.InferenceSession:
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = SILENT
    for name, value in SESSION_OPTIONS.items():
        options.add_session_config_entry(name, value)
    return ort.InferenceSession(graph, options, providers=[("CUDAExecutionProvider", device_option(device))])
