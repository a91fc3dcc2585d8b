"""A test after which too many files are open fails, and says which."""

from __future__ import annotations

import few_descriptors
import pytest

TESTS = """
kept = []

def test_before(): pass
def test_keeps(tmp_path):
    for number in range(100):
        kept.append((tmp_path / f"kept{number}").open("w"))
def test_after(): pass
def test_closes():
    for file in kept:
        file.close()
"""


def test_the_first_test_that_keeps_too_many_fails(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_descriptors, "MOST", few_descriptors.num_descriptors() + 50)
    pytester.makepyfile(TESTS)
    done = pytester.runpytest_inprocess("-p", "few_descriptors")
    done.assert_outcomes(passed=4, errors=1)
    done.stdout.fnmatch_lines(["*ERROR at teardown of test_keeps*", "*100 */keptN"])
