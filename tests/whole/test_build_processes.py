"""Builds by several processes, and by such as are killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from compiler_fixtures import COVERAGE
from processes import has_ended, wait_until

from kontext_trt.engine.bundle.bundle import Bundle
from kontext_trt.engine.errors import PlanError
from kontext_trt.engine.plans.ingredients import plan_ingredients
from kontext_trt.engine.plans.machine import Machine
from kontext_trt.engine.plans.store import PlanStore
from kontext_trt.engine.plans.targets import Target

CHILD = """
import logging, sys
from kontext_trt.engine.builder.build import build
from kontext_trt.engine.builder.plan_build import plan_build
from kontext_trt.engine.bundle.bundle import Bundle
from kontext_trt.engine.plans.coverage import Coverage
from kontext_trt.engine.flavour import FlavourName, load_flavour
from kontext_trt.engine.plans.targets import make_target
logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
bundle, component, sizes = Bundle.open(sys.argv[1]), sys.argv[2], eval(sys.argv[3])
rtx = load_flavour(FlavourName.TENSORRT_RTX)
print("ready", flush=True)
sys.stdin.readline()
(planned,) = plan_build(bundle, [component], make_target(rtx, "sm_89", ()), Coverage(sizes=sizes, max_steps=8))
built = build(planned)
print(built.reused, built.manifest.key, flush=True)
"""


def _start(bundle: Bundle, component: str) -> subprocess.Popen[str]:
    """A process that has loaded everything and waits for a line to build."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(bundle.path), component, repr(COVERAGE.sizes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_two_processes_build_one_key_once(wide_bundle: Bundle) -> None:
    both = [_start(wide_bundle, "denoiser") for _ in range(2)]
    for process in both:
        _go(process)
    ends = [process.communicate(timeout=300) for process in both]
    reused, keys = zip(*(out.split() for out, _ in ends), strict=True)
    assert sorted(reused) == ["False", "True"], ends
    assert len(set(keys)) == 1
    waited = next(err for out, err in ends if out.startswith("True"))
    assert "is being built by another process; waiting for it" in waited


@pytest.mark.parametrize("moments", [3, pytest.param(10, marks=pytest.mark.check)])
def test_a_build_killed_at_any_moment_leaves_nothing_that_opens(wide_bundle: Bundle, ada: Target, moments: int) -> None:
    """At moments from before the compiler starts to after the plan is in place."""
    dice = random.Random(10)
    machine = Machine(flavour=ada.flavour, version=ada.version, gpu=None)
    store = PlanStore.of(wide_bundle.path)
    key = plan_ingredients(wide_bundle, "conditioner", ada, COVERAGE).key
    finished = 0
    for moment in ((number + dice.random()) / moments for number in range(moments)):  # within a second
        process = _start(wide_bundle, "conditioner")
        _go(process)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=120)
        found = store.find("conditioner", key)
        for entry in store.entries():
            assert entry.manifest == found, "what is listed is what is sound"
        if found is None:
            with pytest.raises(PlanError, match=r"cannot be read|was not finished"):  # noqa: SIM117
                with store.open("conditioner", key, machine):
                    raise AssertionError("an unfinished plan was opened")
        else:
            finished += 1
            assert store.remove_unused("conditioner", key)  # the next moment starts anew
    assert finished < moments, "every moment came after the end"
    process = _start(wide_bundle, "conditioner")
    _go(process)
    out, err = process.communicate(timeout=300)
    assert out.split()[-1] == key, err
    left = [path for path in (store.folder / "conditioner").iterdir() if path.name.startswith(".")]
    assert left == [], "the next build clears what killed ones left"


def test_the_compiler_dies_with_the_process_that_started_it(wide_bundle: Bundle) -> None:
    process = _start(wide_bundle, "denoiser")
    _go(process)
    child = wait_until(lambda: _children(process.pid), "the compiler starts")[0]
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    wait_until(lambda: has_ended(child), "the compiler ends")


def _children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
