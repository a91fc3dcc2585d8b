"""Every CUDA source that operators are computed from compiles for every architecture, without a GPU."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from kontext_trt.runtime.operators import cuda
from kontext_trt.runtime.operators.compile import compile_cubin
from kontext_trt.runtime.operators.cuda.device import whole_source

ARCHITECTURES = ("sm_80", *(pytest.param(f"sm_{one}", marks=pytest.mark.check) for one in (89, 90, 100, 120)))
NORMS = ("group_statistics", "group_means", "group_norm")
SOURCES = [
    *((name, {"CHANNELS": channels, "GROUPS": 32, "SILU": 1}) for name in NORMS for channels in (32, 128, 512)),
    ("upsample", {"CHANNELS": 512}),
    *(("exchange", {"PACKING": packing}) for packing in (0, 1)),
    *((name, {}) for name in ("channels", "filters", "softmax", "quantize", "widen")),
    *(
        ("modulate", {"HIDDEN": 3072, "GATED": gated, "NORMED": normed, "FP8": fp8})
        for gated, normed, fp8 in ((0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 1, 0), (1, 1, 1))
    ),
    *(("heads", {"HEAD_WIDTH": width, "HEADS": 24, "FP8": fp8}) for width in (16, 128, 256) for fp8 in (0, 1)),
    *(("key_means", {"HEAD_WIDTH": width, "HEADS": 24}) for width in (16, 128, 256)),
]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_sources_are_compiled_for_every_architecture(arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, macros in SOURCES:
        options = tuple(f"-D{macro}={value}" for macro, value in macros.items())
        assert name.encode() in compile_cubin(whole_source(f"{name}.cu"), arch=arch, options=options)


def test_no_source_is_left_out():
    files = {Path(one.name) for one in resources.files(cuda).iterdir()}
    assert {one.stem for one in files if one.suffix == ".cu"} == {name for name, _ in SOURCES}
