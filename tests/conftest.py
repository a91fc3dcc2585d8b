"""What holds for every test: the shared fixtures' modules, and what is skipped where there is no GPU."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

pytest_plugins = [
    "pytester",
    "no_skips",
    "one_thread",
    "once_per_run",
    "traced_graphs",
    "bundle_fixtures",
    "quantizing_fixtures",
    "compiler_fixtures",
    "simulation",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    from kontext_trt.engine.system.gpus import find_gpus

    gpus, reason = find_gpus()
    if not gpus and os.environ.get("KONTEXT_TRT_REQUIRE_GPU"):
        raise pytest.UsageError(f"these tests need a GPU: {reason}")
    if not gpus:
        skip = pytest.mark.skip(reason=f"needs a GPU: {reason}")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(skip)
