"""In continuous integration, what is skipped without need of a GPU has failed."""

from __future__ import annotations

from pathlib import Path

import no_skips
import pytest

TESTS = """
import pytest

@pytest.fixture
def absent():
    pytest.skip("absent is not installed")

def test_runs(): pass
def test_needs_it(absent): pass
@pytest.mark.skipif(True, reason="not today")
def test_today(): pass
def test_inside(): pytest.importorskip("no_such_package")
@pytest.mark.xfail(reason="known", strict=True)
def test_known(): raise AssertionError
@pytest.mark.gpu
@pytest.mark.skipif(True, reason="no GPU here")
def test_on_gpu(): pass
"""
WHOLE_FILE = "import pytest\npytest.importorskip('no_such_package')\ndef test_more(): pass\n"


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    pytester.makeini("[pytest]\nmarkers = gpu: needs a GPU\n")
    pytester.makepyfile(test_some=TESTS, test_whole_file=WHOLE_FILE)
    monkeypatch.setenv("PYTHONPATH", str(Path(no_skips.__file__).parent))
    return pytester


def test_a_skip_is_a_failure(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(no_skips.VARIABLE, "1")
    result = project.runpytest_subprocess("-p", "no_skips", "--continue-on-collection-errors")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=1, failed=1, errors=3, skipped=1, xfailed=1)
    for reason in ("absent is not installed", "not today", "could not import 'no_such_package'"):
        result.stdout.fnmatch_lines(f"*with KONTEXT_TRT_CI=1 nothing but tests marked gpu may be skipped. *{reason}*")


def test_elsewhere_it_is_a_skip(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(no_skips.VARIABLE, raising=False)
    result = project.runpytest_subprocess("-p", "no_skips")
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=1, skipped=5, xfailed=1)


def test_this_run_has_the_rule(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.pluginmanager.has_plugin("no_skips")
