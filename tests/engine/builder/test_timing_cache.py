"""TensorRT's timing cache between builds, with a stand-in for the library's cache: a set of words."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from kontext_trt.engine.builder.timing_cache import attach_timings, merge_timings
from kontext_trt.engine.bundle.shared_file import SharedFile
from kontext_trt.engine.flavour.tensorrt_rtx import TensorRtRtxContexts
from kontext_trt.engine.plans.caches import RUNTIME, TIMING, cache_file
from kontext_trt.engine.plans.targets import Target


class Cache:
    """Its first word is the device."""

    def __init__(self, data: bytes) -> None:
        self.device, *self.timings = data.decode().split() or ["h200"]

    def combine(self, other: Cache, ignore_mismatch: bool) -> bool:
        if self.device != other.device and not ignore_mismatch:
            return False
        self.timings = sorted({*self.timings, *other.timings})
        return True

    def serialize(self) -> bytes:
        return " ".join([self.device, *self.timings]).encode()


class Config:
    """A build on an H200."""

    def __init__(self) -> None:
        self.cache = Cache(b"")

    def create_timing_cache(self, data: bytes) -> Cache:
        return Cache(data)

    def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
        if cache.device == "h200":
            self.cache = cache
        return cache.device == "h200"

    def get_timing_cache(self) -> Cache:
        return self.cache


def test_what_one_build_measures_the_next_one_knows(tmp_path: Path) -> None:
    path = SharedFile(bundle=tmp_path, place="caches/h200.cache")
    first = Config()
    attach_timings(first, path)
    first.cache.timings.append("gemm=1")
    merge_timings(first, path)
    second = Config()
    assert attach_timings(second, path).timings == ["gemm=1"]


def test_builds_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = SharedFile(bundle=tmp_path, place="caches/h200.cache")
    builds = [Config() for _ in range(8)]
    for number, build in enumerate(builds):
        attach_timings(build, path)
        build.cache.timings.append(f"kernel{number}=1")
    threads = [threading.Thread(target=merge_timings, args=(build, path)) for build in builds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Cache(path.read()).timings == sorted(f"kernel{number}=1" for number in range(8))


def test_another_devices_cache_is_replaced_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = SharedFile(bundle=tmp_path, place="caches/h200.cache")
    path.update(lambda _: b"l4 gemm=9")
    build = Config()
    with caplog.at_level(logging.WARNING):
        attach_timings(build, path)
        build.cache.timings.append("gemm=1")
        merge_timings(build, path)
    assert path.read() == b"h200 gemm=1"
    assert "does not fit this device" in caplog.text


def test_no_two_devices_or_versions_share_a_file(tmp_path: Path) -> None:
    h200 = Target(flavour="tensorrt", version="11.4.0.106", capability="sm_90", gpu="NVIDIA H200")
    assert cache_file(tmp_path, TIMING, h200).path == (
        tmp_path / "caches/timing/nvidia-h200-sm_90-tensorrt-11.4.0.106.cache"
    )
    rtx = Target(flavour="tensorrt_rtx", version="1.7.1.116", capability="sm_120")
    assert cache_file(tmp_path, RUNTIME, rtx).path.name == "sm_120-tensorrt_rtx-1.7.1.116.cache"


def test_a_failed_update_leaves_the_cache_as_it_was(tmp_path: Path) -> None:
    path = SharedFile(bundle=tmp_path, place="caches/some.cache")
    path.update(lambda data: data + b"1")

    def fail(data: bytes) -> bytes:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        path.update(fail)
    assert path.read() == b"1"
    assert sorted(file.name for file in path.path.parent.iterdir()) == ["some.cache", "some.lock"]


class FakeRuntimeCache:
    """Takes what begins with its GPU's letter, as the real one takes what was made on the same device."""

    def __init__(self) -> None:
        self.kernels = b""

    def deserialize(self, data: bytes) -> bool:
        if not data.startswith(b"A"):
            return False
        self.kernels = data
        return True

    def serialize(self) -> bytes:
        return self.kernels or b"A new"


def test_runtime_cache_of_another_gpu_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trt = MagicMock()
    engine = MagicMock()
    engine.create_runtime_config.return_value.create_runtime_cache.side_effect = FakeRuntimeCache
    path = SharedFile(bundle=tmp_path, place="caches/runtime.cache")
    for before, after, words in ((b"A old", b"A old", ""), (b"B old", b"A new", "of another GPU or library")):
        path.update(lambda _, before=before: before)
        contexts = TensorRtRtxContexts(trt, path)
        contexts.create(engine)
        contexts.close()
        assert path.read() == after
        assert words in caplog.text
        assert bool(words) == bool(caplog.messages)


@pytest.mark.parametrize("cache", [None, SimpleNamespace(serialize=lambda: None, combine=lambda *_: True)])
def test_a_library_that_gives_nothing_costs_no_timings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, cache: object
) -> None:
    path = SharedFile(bundle=tmp_path, place="caches/h200.cache")
    path.update(lambda _: b"h200 gemm=1")
    build = Config()
    build.get_timing_cache = lambda: cache  # type: ignore[method-assign]
    merge_timings(build, path)
    assert path.read() == b"h200 gemm=1"
    assert "the library gave no timings; h200.cache stays as it is" in caplog.text


def test_a_library_that_gives_no_kernels_costs_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = MagicMock()
    engine.create_runtime_config.return_value.create_runtime_cache.return_value.serialize.return_value = None
    path = SharedFile(bundle=tmp_path, place="caches/runtime.cache")
    path.update(lambda _: b"A old")
    contexts = TensorRtRtxContexts(MagicMock(), path)
    contexts.create(engine)
    contexts.close()
    assert path.read() == b"A old"
    assert "the library gave no kernels to keep" in caplog.text
