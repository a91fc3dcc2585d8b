"""The command in a process of its own, as a person runs it."""

import functools
import os
import subprocess
import sys
from pathlib import Path

from fork_server import EXPORTING, RUNNING, ForkServer
from once_per_run import OncePerRun

LINKS = str(Path(__file__).parent.parent.parent / ".links")
COMMAND = "import runpy; runpy.run_module('kontext_trt', run_name='__main__', alter_sys=True)"
SHARING = "import sys, traced_graphs; traced_graphs.trace_once_here(sys.argv.pop(1)); "
WITH_TORCH = {"calibrate", "compare", "demo", "export", "quantize"}
"""Commands that import torch, and so does `lora fuse`."""


def environment(*folders: str) -> dict[str, str]:
    path = os.pathsep.join((LINKS, *folders))
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "200", "NO_COLOR": "1"}


@functools.cache
def server(*modules: str) -> ForkServer:
    """This process's server that has imported these."""
    return ForkServer(" ".join(modules), environment())


def run(
    *arguments: object,
    code: int = 0,
    cwd: Path | None = None,
    graphs: OncePerRun | None = None,
    lines: str | None = None,
    fresh: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run one, and give it `lines` to read.

    `graphs` lets an export take traced graphs from this run, and leave there what it traces. `fresh` starts a new
    interpreter; without, the process is a copy of one that has imported what commands import.
    """
    given, program, around = [*map(str, arguments)], COMMAND, environment()
    if graphs is not None:
        given, program = [str(graphs.folder), *given], SHARING + COMMAND
        around = environment(str(Path(__file__).parent))
    if fresh:
        command = [sys.executable, "-c", program, *given] if graphs else [sys.executable, "-m", "kontext_trt", *given]
        done = subprocess.run(command, input=lines, capture_output=True, text=True, env=around, cwd=cwd, check=False)
    else:
        with_torch = arguments[0] in WITH_TORCH or arguments[:2] == ("lora", "fuse")
        started = server(RUNNING, EXPORTING) if with_torch else server(RUNNING)
        done = started.run(program, given, around, cwd, lines)
    assert done.returncode == code, done.stderr
    return done
