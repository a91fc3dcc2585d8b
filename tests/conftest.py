"""What holds for every test: the shared fixtures' modules, and what is skipped where there is no GPU."""

from __future__ import annotations

import gc
import os
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# environments of their own have these: make check-ray, make check-lpips
collect_ignore = [name for name in ("ray", "lpips") if find_spec(name) is None]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # for tests that import ONNX Runtime themselves
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so it is in the background, and programs would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = [
    "pytester",
    "no_skips",
    "one_thread",
    "few_descriptors",
    "once_per_run",
    "signing_key",
    "traced_graphs",
    "bundle_fixtures",
    "hub_server",
    "browser",
    "quantizing_fixtures",
    "fused_fixtures",
    "lora_fixtures",
    "compiler_fixtures",
    "simulation",
    "started_ranks",
]

# tracing makes objects by the million, and they live: looking through them often costs a tenth of its time
gc.set_threshold(200_000, 20, 100)

HEAVIEST_FIRST = (
    "whole/test_small_kontext.py",
    "engine/builder/test_build.py",
    "serving/playground/test_playground.py",
    "whole/test_quantized_plans.py",
    "benchmarks/bench/test_full_size.py",
    "benchmarks/bench/test_bench.py",
    "benchmarks/bench/test_peers.py",
    "cli/test_app.py",
    "export/test_export.py",
    "export/graphs/test_trace.py",
    "benchmarks/bench/test_graph_work.py",
    "benchmarks/bench/test_ablation.py",
    "whole/test_programs.py",
    "whole/test_build_processes.py",
)
"""So that no worker is left alone with one of them at the end. The first two trace graphs that are not the other's."""


def place(item: pytest.Item) -> int:
    name = item.path.relative_to(TESTS).as_posix()
    return HEAVIEST_FIRST.index(name) if name in HEAVIEST_FIRST else len(HEAVIEST_FIRST)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    from kontext_trt.engine.system.gpus import find_gpus

    items.sort(key=place)
    gpus, reason = find_gpus()
    if not gpus and os.environ.get("KONTEXT_TRT_REQUIRE_GPU"):
        raise pytest.UsageError(f"these tests need a GPU: {reason}")
    if not gpus:
        skip = pytest.mark.skip(reason=f"needs a GPU: {reason}")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(skip)
