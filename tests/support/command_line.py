"""The command in a process of its own, as a person runs it."""

import os
import subprocess
import sys
from pathlib import Path

LINKS = str(Path(__file__).parent.parent.parent / ".links")


def run(*arguments: object, code: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": LINKS, "COLUMNS": "200", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "kontext_trt", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, check=False)
    assert done.returncode == code, done.stderr
    return done
