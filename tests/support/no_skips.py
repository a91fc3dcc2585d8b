"""With KONTEXT_TRT_CI=1, a test that is skipped and does not need a GPU has failed: a missing package must be seen."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

VARIABLE = "KONTEXT_TRT_CI"


def refuse(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Make a skip a failure that quotes the reason. What is expected to fail is no skip."""
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid}: with {VARIABLE}=1 nothing but tests marked gpu may be skipped. {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if os.environ.get(VARIABLE) and item.get_closest_marker("gpu") is None:
        refuse(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A file that is skipped as a whole has no marks yet."""
    report = yield
    if os.environ.get(VARIABLE):
        refuse(report)
    return report
