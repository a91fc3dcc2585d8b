"""Shares one arena of device memory among sessions of ONNX Runtime, which never run at the same time.

With an arena each, what every session took at most adds up. The shared one is the process's: ONNX Runtime keeps it when
the last session is gone, so it is emptied by hand.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from .onnxruntime_session import SILENT, device_option, import_onnxruntime

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


@cache
def share_arena(device: int) -> None:
    """Make the arena of a device, once in a process."""
    ort = import_onnxruntime()
    info = ort.OrtMemoryInfo("Cuda", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, device, ort.OrtMemType.DEFAULT)
    config = ort.OrtArenaCfg({"arena_extend_strategy": _SAME_AS_REQUESTED})
    ort.create_and_register_allocator_v2("CUDAExecutionProvider", info, {"device_id": str(device)}, config)


def empty_arena(device: int) -> None:
    """Give back what lies free in the arena of a device. No recorded graph may be launched afterwards."""
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = SILENT
    for name, value in SESSION_OPTIONS.items():
        options.add_session_config_entry(name, value)
    session = ort.InferenceSession(_IDENTITY, options, providers=[("CUDAExecutionProvider", device_option(device))])
    run = ort.RunOptions()
    run.add_run_config_entry("memory.enable_memory_arena_shrinkage", f"gpu:{device}")
    given: Any = {"x": np.zeros(1, np.float32)}
    session.run(None, given, run)
