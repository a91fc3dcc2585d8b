"""What branches of fused operators are compiled from; what they launch is in test_computing.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from kontext_trt.runtime.operators.catalogue import DEFINITIONS
from kontext_trt.runtime.operators.cuda.device import KernelDevice
from kontext_trt.runtime.operators.cuda.registry import compile_for


@pytest.mark.parametrize("arch", ["sm_89", "sm_120"])
@pytest.mark.parametrize("other", ["Linear_branched_fp8", "WeightOnlyLinear"])
def test_what_widens_fp8_is_compiled_before_it_runs(
    arch: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    device = KernelDevice.__new__(KernelDevice)  # without a GPU
    device.architecture, device._functions = arch, {}
    loaded: list[str] = []
    device.launcher = cast(Any, type("Loading", (), {"function": lambda self, cubin, name: loaded.append(name)})())
    compile_for(device, [DEFINITIONS["Linear_branched"], DEFINITIONS[other]], 128, 64)
    assert loaded == ["widen"]
