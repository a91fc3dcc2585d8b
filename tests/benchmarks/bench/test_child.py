"""Measurements in processes of their own: how they end, and that they do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from processes import has_ended, wait_until

from kontext_trt.benchmarks.bench import peers
from kontext_trt.benchmarks.bench.child import ChildError, run_child
from kontext_trt.benchmarks.bench.peers import PeerName, measure_peer
from kontext_trt.benchmarks.bench.records import Case, Unmeasured

CASE = Case(size=(64, 64), reference=None, steps=1, batch=1, seed=0, guidance=2.5, prompt="x")


@pytest.fixture
def child_module(tmp_path: Path, monkeypatch):
    """Makes a module of this code that a child can run."""

    def make(code: str) -> str:
        (tmp_path / "the_child.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return "the_child"

    return make


@pytest.mark.parametrize(
    ("code", "timeout_s", "reason"),
    [
        ("raise MemoryError('CUDA out of memory. Tried to allocate 2 GiB')", 20, "ended with 1: .*out of memory"),
        ("import os; os.kill(os.getpid(), 9)", 20, "killed by SIGKILL, as the kernel does when memory is short$"),
        ("import time; print('compiling', flush=True); time.sleep(600)", 2, "not done after 2 s.*: compiling"),
    ],
)
def test_a_child_that_fails_is_a_failure(child_module, monkeypatch, tmp_path: Path, code, timeout_s, reason):
    monkeypatch.setattr(peers, "MODULE", child_module(code))
    found = measure_peer(PeerName.EAGER, tmp_path, CASE, None, repeat=1, folder=tmp_path / "out", timeout_s=timeout_s)
    assert isinstance(found, Unmeasured)
    assert found.engine == "diffusers"
    assert re.search(reason, found.reason)


def test_a_late_childs_children_end_with_it(child_module, tmp_path: Path):
    code = (
        "import subprocess, sys, time\n"
        "grandchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(grandchild.pid, flush=True)\n"
        "time.sleep(600)"
    )
    with pytest.raises(ChildError, match="not done"):
        run_child("-m", child_module(code), log=tmp_path / "log", timeout_s=2)
    grandchild = int((tmp_path / "log").read_text())
    wait_until(lambda: has_ended(grandchild), "the grandchild ends with its parent")


def test_a_child_ends_with_a_benchmark_that_is_killed(child_module, tmp_path: Path):
    """Else it would keep the GPU's memory, and spoil the next one."""
    child = child_module(
        "import os, time\n"
        "from kontext_trt.benchmarks.program import run_main\n"
        "def main():\n"
        "    print(os.getpid(), flush=True)\n"
        "    time.sleep(600)\n"
        "run_main(main)"
    )
    log = tmp_path / "log"
    code = (
        "from pathlib import Path\n"
        "from kontext_trt.benchmarks.bench.child import run_child\n"
        f"run_child('-m', {child!r}, log=Path({str(log)!r}))"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    benchmark = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path})
    pid = int(wait_until(lambda: log.exists() and log.read_text().strip(), "the child starts"))
    benchmark.terminate()
    benchmark.wait()
    wait_until(lambda: has_ended(pid), "the child ends with the benchmark")
