"""Where every core has a worker, each computes in one thread: two that spin for one core cost both their time."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator

import pytest

WORKER = "PYTEST_XDIST_WORKER" in os.environ
if WORKER:  # before torch is imported, and for children, too
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """ONNX Runtime reads no variable: sessions that would take every core take one."""
    if not WORKER:
        yield
        return
    from kontext_trt.runtime.executors import onnxruntime_cpu

    opened = onnxruntime_cpu.open_session

    @functools.wraps(opened)
    def open_session(*arguments, threads: int = 0, **options):
        return opened(*arguments, threads=threads or 1, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime_cpu, "open_session", open_session)
        yield
