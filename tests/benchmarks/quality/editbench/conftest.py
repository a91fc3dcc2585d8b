"""The cases of EditBench, drawn once."""

import pytest

from kontext_trt.benchmarks.quality.editbench.cases import EditCase, cases


@pytest.fixture(scope="session")
def bench() -> tuple[EditCase, ...]:
    return cases()
