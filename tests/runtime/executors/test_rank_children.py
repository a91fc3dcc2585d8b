"""When the processes of ranks end, and what of this process they have."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from few_descriptors import num_descriptors
from processes import has_ended, wait_until
from started_ranks import Start, is_gone, jobs, pids_of
from stub_rank import COMMAND

from kontext_trt.runtime.executors import rank_children
from kontext_trt.runtime.executors.ranks import Ranks

ROOT = Path(__file__).parents[3]


def test_forgotten_ones_end():
    before = num_descriptors()
    made = Ranks(jobs(), timeout_s=60, command=COMMAND)
    pids = pids_of(made)
    gc.disable()
    try:
        del made
    finally:
        gc.enable()
    assert all(map(is_gone, pids))
    assert num_descriptors() == before


def test_a_thread_that_ends_takes_none_with_it(start: Start):
    made: list[Ranks] = []
    threads = [threading.Thread(target=lambda: made.append(start())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [pid for one in made for pid in pids_of(one)]
    assert len(set(found)) == 4
    made[0].close()
    assert pids_of(made[1]) == found[2:], "the other group's are its own"


PARENT = f"""
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path[:0] = [{str(ROOT / "tests/support")!r}]
from stub_rank import COMMAND
from kontext_trt.runtime.executors.options import OnnxRuntimeOptions
from kontext_trt.runtime.executors.rank_job import RankJob
from kontext_trt.runtime.executors.ranks import Ranks
jobs = [RankJob(bundle="none", options=OnnxRuntimeOptions(device="cpu"), rank=r, size=2, sockets={{}}) for r in (0, 1)]
ranks = Ranks(jobs, timeout_s=60, command=COMMAND)
"""


def parent(code: str, **options) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / ".links")}
    words = [sys.executable, "-c", PARENT + code]
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True, **options)


def told_pids(process: subprocess.Popen[str]) -> list[int]:
    assert process.stdout is not None
    return [int(word) for word in process.stdout.readline().split()]


def test_a_fork_has_no_part_in_them():
    """In a process of its own: what else this one holds might not bear to be collected in a fork."""
    code = """
import gc
from kontext_trt.engine.errors import ExecutorError
before = ranks.ask("tell")
sys.stdout.flush()
if not (child := os.fork()):
    try:
        ranks.close()
        ranks.ask("tell")
    except ExecutorError as error:
        print(error, flush=True)
    del ranks
    gc.collect()
    os._exit(0)
os.waitpid(child, 0)
print(ranks.ask("tell") == before)
"""
    with parent(code) as process:
        out, _ = process.communicate(timeout=30)
    assert out.splitlines() == [
        "the devices belong to the process that opened them; open the bundle in this one itself",
        "True",
    ]


def test_they_end_with_a_parent_that_is_killed_though_it_has_forked():
    """While they compute."""
    code = """
print(*[pid for _, pid in ranks.ask("tell")], flush=True)
if not (child := os.fork()):
    time.sleep(60)
print(child, flush=True)
ranks.ask("sleep", {0: 60.0, 1: 60.0})
"""
    with parent(code) as process:
        pids = told_pids(process)
        (fork,) = told_pids(process)
        time.sleep(0.2)
        process.kill()
        process.wait()
        try:
            wait_until(lambda: all(map(has_ended, pids)), "the ranks end", 10)
        finally:
            os.kill(fork, signal.SIGKILL)


def test_they_end_with_a_parent_that_forgot_to_close():
    code = 'print(*[pid for _, pid in ranks.ask("tell")], flush=True)'
    with parent(code, stderr=subprocess.PIPE) as process:
        pids = told_pids(process)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert all(map(has_ended, pids))


def test_an_interrupt_of_the_terminal_is_the_parents_to_decide():
    """It is sent to the whole process group, also while ranks start."""
    code = """
print("ready", flush=True)
try:
    ranks.ask("sleep", {0: 1.0, 1: 1.0})
except KeyboardInterrupt:
    print(ranks.ask("echo", "alive"), flush=True)
"""
    with parent(code, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.readline() == "['alive', 'alive']\n"
        assert process.wait(20) == 0


def test_what_ranks_print_is_not_what_the_program_prints():
    code = 'ranks.ask("print", "from a rank"); ranks.close(); print("from the program")'
    with parent(code, stderr=subprocess.PIPE) as process:
        out, error = process.communicate(timeout=30)
    assert out == "from the program\n"
    assert error == 4 * "from a rank\n"


def test_the_command_imports_nothing_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("signal", "socket", "types", "numpy", "kontext_trt"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this is not the one')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    command = rank_children.rank_command()
    main = "from kontext_trt.runtime.executors.rank_process import main; main()"
    assert command[-1].endswith(main)
    code = command[-1].removesuffix("main()") + "import sys; print(sys.modules['kontext_trt'].__file__)"
    done = subprocess.run([*command[:-1], code], capture_output=True, text=True, check=True, env={})
    assert Path(done.stdout.strip()).resolve() == ROOT / "__init__.py"
