"""Bundles by a hostile author are refused in words or opened as they are; nothing outside them is touched.

The long run: KONTEXT_TRT_FUZZ_CASES=10000 pytest tests/whole/test_hostile_bundles.py -m check
"""

from __future__ import annotations

import collections
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from once_per_run import OncePerRun
from simulated_tensorrt import add_plans

from kontext_trt import Bundle
from kontext_trt.engine.plans.coverage import Coverage

SECONDS_PER_CASE = 20
CASES, LONG_CASES = 60, int(os.environ.get("KONTEXT_TRT_FUZZ_CASES", "1500"))
SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(scope="session")
def hostile_base(bundle_path: Path, once_per_run: OncePerRun) -> Path:
    """A bundle with plans that another user built. Not to be altered."""

    def write(path: Path) -> None:
        made = Bundle.open(shutil.copytree(bundle_path, path))
        add_plans(made, Coverage(sizes=((128, 128),)), components=("clip", "t5"))
        for signature in path.glob("plans/*/*.sig"):
            signature.write_text(f"{'0' * 16} {'0' * 64}\n")

    return once_per_run.make("hostile-base", write)


@pytest.fixture
def forbidden(tmp_path: Path) -> Path:
    """What lies outside: a file that has the size of weights, a folder like a store's, and a plan in it."""
    outside = tmp_path / "outside"
    (outside / "folder").mkdir(parents=True)
    (outside / "secret").write_bytes(os.urandom(2 << 20))
    for name in (f"{'0' * 32}.plan", f"{'0' * 32}.json", "report", "some.cache", ".00000000000000000000000000000000.x"):
        (outside / "folder" / name).write_bytes(b"not yours")
    return outside


class Cases:
    """Runs cases in processes of their own, each after the last; one that dies is known by the case that it was at."""

    def __init__(self, base: Path, workplace: Path, forbidden: Path) -> None:
        self._arguments = [str(path) for path in (base, workplace, forbidden)]
        self._environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path])}

    def run(self, first: int, count: int) -> Iterator[dict]:
        seed, end = first, first + count
        while seed < end:
            for answer in self._child(seed, end - seed):
                seed = answer["seed"] + 1
                yield answer

    def _child(self, first: int, count: int) -> Iterator[dict]:
        """Answers of one child, which ends with the first case that it does not survive."""
        command = [sys.executable, "-m", "hostile_child", *self._arguments, str(first), str(count)]
        at = first
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self._environment, bufsize=0
        ) as child:
            assert child.stdout is not None
            assert child.stderr is not None
            while line := self._line(child):
                answer = json.loads(line)
                at = answer.get("begins", at)
                if "seed" in answer:
                    yield answer
                    if answer["seed"] == first + count - 1:
                        child.wait()
                        return
            said = "no answer in time" if child.poll() is None and not line else ""
            child.kill()
            said = said or child.stderr.read().decode(errors="replace")[-2000:]
            yield {
                "seed": at,
                "kind": "?",
                "opened": False,
                "refusals": [],
                "problems": [f"died: {child.wait()} {said}"],
            }

    def _line(self, child: subprocess.Popen) -> bytes:
        ready, _, _ = select.select([child.stdout], [], [], SECONDS_PER_CASE)
        return child.stdout.readline() if ready and child.stdout is not None else b""


def _check(cases: Cases, first: int, count: int) -> None:
    bad: list[tuple[int, str, list[str]]] = []
    outcomes, start = collections.Counter[str](), time.monotonic()
    for answer in cases.run(first, count):
        outcomes[f"{answer['kind']} {'opened' if answer['opened'] else 'refused'}"] += 1
        if answer["problems"]:
            bad.append((answer["seed"], answer["kind"], answer["problems"]))
    print(f"{count} cases in {time.monotonic() - start:.0f} s:", dict(sorted(outcomes.items())))
    assert bad == []
    kinds = {outcome.split()[0] for outcome in outcomes}
    assert len(kinds) >= 14, "every kind had its turn"
    assert {outcome.split()[1] for outcome in outcomes} == {"opened", "refused"}


@pytest.fixture
def cases(hostile_base: Path, tmp_path: Path, forbidden: Path) -> Cases:
    workplace = tmp_path / "cases"
    workplace.mkdir()
    return Cases(hostile_base, workplace, forbidden)


def test_hostile_bundles_harm_nothing(cases: Cases) -> None:
    _check(cases, 0, CASES)


@pytest.mark.check
def test_many_hostile_bundles_harm_nothing(cases: Cases) -> None:
    _check(cases, CASES, LONG_CASES)
