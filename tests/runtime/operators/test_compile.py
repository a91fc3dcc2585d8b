"""Kernels are compiled for every architecture without a GPU, and kept for the user who compiled them."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from kontext_trt.engine.errors import ExecutorError, MissingDependencyError
from kontext_trt.engine.system.signing import VARIABLE
from kontext_trt.runtime.operators import compile as compiling
from kontext_trt.runtime.operators.compile import compile_cubin

PLAIN = 'extern "C" __global__ void plain(float* y) { y[threadIdx.x] = FACTOR; }'
OPTIONS = ("-DFACTOR=2.0f",)
ROUNDS = """
#include <cuda_bf16.h>
#include <cuda_fp8.h>
extern "C" __global__ void rounds(const __nv_bfloat16* x, __nv_fp8_e4m3* y, int size) {
  int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at < size) y[at] = __nv_fp8_e4m3(__bfloat162float(x[at]));
}
"""
ARCHITECTURES = ("sm_80", "sm_89", "sm_90", "sm_100", "sm_120")


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this test's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "kontext-trt/kernels"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The architectures that NVRTC compiles for, in this test."""
    calls: list[str] = []
    compile_now = compiling._Nvrtc.compile

    def counted(self: Any, source: str, arch: str, options: tuple[str, ...]) -> bytes:
        calls.append(arch)
        return compile_now(self, source, arch, options)

    monkeypatch.setattr(compiling._Nvrtc, "compile", counted)
    return calls


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_bf16_and_fp8_for_every_architecture(arch: str):
    cubin = compile_cubin(ROUNDS, arch=arch)
    assert cubin.startswith(b"\x7fELF")
    assert f"sm_{cubin[49]}" == arch, "the second byte of e_flags, in CUDA 13"
    assert b"rounds" in cubin


def test_what_is_kept_is_not_compiled_again(kept: Path, compiled: list[str]):
    first = compile_cubin(PLAIN, arch="sm_90", options=OPTIONS)
    assert compile_cubin(PLAIN, arch="sm_90", options=OPTIONS) == first
    assert compiled == ["sm_90"]
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700


def test_whatever_changes_the_code_is_another_cubin(compiled: list[str], monkeypatch: pytest.MonkeyPatch):
    def all_of_it() -> None:
        compile_cubin(PLAIN, arch="sm_90", options=OPTIONS)
        compile_cubin(PLAIN, arch="sm_80", options=OPTIONS)
        compile_cubin(PLAIN, arch="sm_90", options=("-DFACTOR=3.0f",))
        compile_cubin(f"{PLAIN}\n", arch="sm_90", options=OPTIONS)

    all_of_it()
    all_of_it()
    assert len(compiled) == 4
    call = compiling._Nvrtc._call
    newer = lambda self, name, *rest: (99, 0) if name == "nvrtcVersion" else call(self, name, *rest)  # noqa: E731
    monkeypatch.setattr(compiling._Nvrtc, "_call", newer)
    compile_cubin(PLAIN, arch="sm_90", options=OPTIONS)
    assert len(compiled) == 5


@pytest.mark.parametrize("how", ["altered", "of another user", "of another source", "a link"])
def test_what_this_user_did_not_write_is_compiled_anew(
    how: str, kept: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    first = compile_cubin(PLAIN, arch="sm_90", options=OPTIONS)
    (file,) = kept.glob("*.cubin")
    match how:
        case "altered":
            file.write_bytes(b"\x7fELF of somebody" + file.read_bytes()[16:])
        case "of another user":
            monkeypatch.setenv(VARIABLE, str(tmp_path / "other.key"))
        case "of another source":
            compile_cubin(f"{PLAIN}\n", arch="sm_90", options=OPTIONS)
            (other,) = set(kept.glob("*.cubin")) - {file}
            other.replace(file)
        case _:
            file.rename(tmp_path / "elsewhere")
            file.symlink_to(tmp_path / "elsewhere")
    compiled.clear()
    assert compile_cubin(PLAIN, arch="sm_90", options=OPTIONS) == first
    assert compiled == ["sm_90"]
    compile_cubin(PLAIN, arch="sm_90", options=OPTIONS)
    assert compiled == ["sm_90"] * (2 if how == "a link" else 1)


def test_where_nothing_can_be_kept_it_is_compiled_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, compiled: list[str]
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        assert compile_cubin(PLAIN, arch="sm_90", options=OPTIONS).startswith(b"\x7fELF")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file"))
    assert compile_cubin(PLAIN, arch="sm_90", options=OPTIONS).startswith(b"\x7fELF")
    assert len(compiled) == 3
    assert caplog.text.count("compiled kernels are not kept") == 3


def test_what_cannot_be_compiled_is_said_with_its_line(kept: Path):
    with pytest.raises(ExecutorError, match=r"for sm_90 .*\nkernels\.cu\(2\): error: identifier \"missing\"") as caught:
        compile_cubin('extern "C" __global__ void f(int* y) {\n *y = missing;\n}\n' + "int x = z;\n" * 20, arch="sm_90")
    assert len(str(caught.value).splitlines()) == 9
    assert list(kept.glob("*.cubin")) == []


def test_an_architecture_that_nvrtc_does_not_know_is_refused():
    with pytest.raises(ExecutorError, match="invalid value for --gpu-architecture"):
        compile_cubin(PLAIN, arch="sm_12", options=OPTIONS)


@pytest.mark.parametrize("package", ["cuda.bindings.nvrtc", "cuda.pathfinder"])
def test_what_is_missing_is_named_with_the_command(package: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'kontext-trt\[fused\]'"):
        compile_cubin(PLAIN, arch="sm_90")


def test_missing_headers_and_a_missing_library_are_named(monkeypatch: pytest.MonkeyPatch):
    import cuda.bindings.nvrtc
    import cuda.pathfinder

    monkeypatch.setattr(cuda.pathfinder, "find_nvidia_header_directory", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"CUDA's headers are not there; .*\[fused\]"):
        compile_cubin(PLAIN, arch="sm_90")

    def not_found() -> None:
        raise RuntimeError('Failure finding "libnvrtc.so"\nmore')

    monkeypatch.setattr(cuda.bindings.nvrtc, "nvrtcVersion", not_found)
    with pytest.raises(MissingDependencyError, match=r"NVRTC cannot be used: Failure finding .libnvrtc\.so.; install"):
        compile_cubin(PLAIN, arch="sm_90")
