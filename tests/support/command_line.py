"""The command in a process of its own, as a person runs it."""

import os
import subprocess
import sys
from pathlib import Path

from once_per_run import OncePerRun

LINKS = str(Path(__file__).parent.parent.parent / ".links")
SHARING = (
    "import runpy, sys, traced_graphs\n"
    "traced_graphs.trace_once_here(sys.argv.pop(1))\n"
    "runpy.run_module('kontext_trt', run_name='__main__', alter_sys=True)"
)


def run(
    *arguments: object,
    code: int = 0,
    cwd: Path | None = None,
    graphs: OncePerRun | None = None,
    lines: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run one, and give it `lines` to read.

    `graphs` lets an export take traced graphs from this run, and leave there what it traces.
    """
    path = LINKS if graphs is None else os.pathsep.join((LINKS, str(Path(__file__).parent)))
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200", "NO_COLOR": "1"}
    program = ["-m", "kontext_trt"] if graphs is None else ["-c", SHARING, str(graphs.folder)]
    command = [sys.executable, *program, *map(str, arguments)]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, env=environment, cwd=cwd, check=False)
    assert done.returncode == code, done.stderr
    return done
