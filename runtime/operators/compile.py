"""Compiles CUDA C++ to cubins by NVRTC, and keeps them: NVRTC needs no GPU and no toolkit.

A cubin is executable code, so those that are kept are signed, and read if this user's key signed them.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...engine.bundle.shared_file import SharedFile
from ...engine.errors import ExecutorError, KontextError, MissingDependencyError

logger = logging.getLogger(__name__)

_FILE = b"kernels.cu"
_LOG_LINES = 8
_INSTALL = "install what compiles kernels with: pip install 'kontext-trt[fused]'"


def compile_cubin(source: str, *, arch: str, options: tuple[str, ...] = ()) -> bytes:
    """Return the machine code of CUDA C++, compiled now or before by this user.

    Args:
        source: The text; it may include CUDA's headers, such as cuda_bf16.h, and no others.
        arch: The architecture as NVRTC names it: "sm_90".
        options: NVRTC's options besides.

    Raises:
        ExecutorError: It cannot be compiled; with the first lines of NVRTC's log.
        MissingDependencyError: NVRTC or CUDA's headers are not installed.
    """
    nvrtc = _Nvrtc()
    try:
        kept = kept_file([source, options, arch, nvrtc.version], ".cubin")
        cubin = kept.read()
    except (KontextError, OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        logger.warning("compiled kernels are not kept: %s", error)
        return nvrtc.compile(source, arch, options)
    if cubin:
        return cubin
    cubin = nvrtc.compile(source, arch, options)
    try:
        kept.update(lambda _: cubin)
    except (KontextError, OSError) as error:
        logger.warning("compiled kernels are not kept: %s", error)
    return cubin


def kept_file(key: Sequence[object], suffix: str) -> SharedFile:
    """Return the file in which this user's processes keep for each other what hangs on a key, which JSON can write.

    Raises:
        OSError: Its folder cannot be made.
        RuntimeError: There is no home folder.
    """
    named = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(named) if named else Path.home() / ".cache") / "kontext-trt"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return SharedFile(bundle=folder, place=f"kernels/{hashlib.sha256(json.dumps(key).encode()).hexdigest()}{suffix}")


class _Nvrtc:
    """Calls NVRTC, which takes its options as text; each call is checked."""

    def __init__(self) -> None:
        try:
            self._nvrtc: Any = importlib.import_module("cuda.bindings.nvrtc")
            pathfinder: Any = importlib.import_module("cuda.pathfinder")
            self.version: tuple[int, int] = tuple(self._call("nvrtcVersion"))
        except (ImportError, RuntimeError) as error:  # RuntimeError: the bindings are there, the library is not
            raise MissingDependencyError(f"NVRTC cannot be used: {str(error).splitlines()[0]}; {_INSTALL}") from error
        headers = pathfinder.find_nvidia_header_directory("cudart")
        if headers is None:
            raise MissingDependencyError(f"CUDA's headers are not there; {_INSTALL}")
        self._headers = headers

    def compile(self, source: str, arch: str, options: tuple[str, ...]) -> bytes:
        words = [f"--gpu-architecture={arch}", f"--include-path={self._headers}", *options]
        program = self._call("nvrtcCreateProgram", source.encode(), _FILE, 0, None, None)
        try:
            try:
                self._call("nvrtcCompileProgram", program, len(words), [word.encode() for word in words])
            except ExecutorError as error:
                log = self._bytes("nvrtcGetProgramLog", program).decode(errors="replace").strip("\0\n")
                lines = "\n".join([line for line in log.splitlines() if line.strip()][:_LOG_LINES])
                raise ExecutorError(f"kernels cannot be compiled for {arch} ({error}):\n{lines}") from error
            return self._bytes("nvrtcGetCUBIN", program)
        finally:
            self._call("nvrtcDestroyProgram", program)

    def _bytes(self, name: str, program: Any) -> bytes:
        found = bytearray(self._call(f"{name}Size", program))
        self._call(name, program, found)
        return bytes(found)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Make a call, and return its results less the status: none, the only one, or a tuple."""
        status, *results = getattr(self._nvrtc, name)(*arguments)
        if status != self._nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise ExecutorError(f"{name}: {status.name}")
        return results[0] if len(results) == 1 else tuple(results)
