"""The first rank of a group runs without the others, on numbers that are its own or zeros."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from simulated_cuda import SimulatedCuda

from kontext_trt.benchmarks.bench import lone_rank
from kontext_trt.benchmarks.bench.lone_rank import Absent, LoneExecutor, on_cpu, on_cuda
from kontext_trt.engine.bundle.bundle import Bundle
from kontext_trt.runtime.executors.options import Device, OnnxRuntimeOptions
from kontext_trt.runtime.flow.group import Piece
from kontext_trt.runtime.kontext import Kontext


def test_what_others_would_send_is_sent_by_the_rank_itself():
    sent, received = np.arange(1, 7, dtype=np.uint8), np.full(16, 255, np.uint8)
    at, to = sent.ctypes.data, received.ctypes.data
    group = on_cpu(3, 0, {}, timeout_s=1.0)
    assert (group.rank, group.size) == (0, 3)
    group.swap([Piece(1, at, 2), Piece(2, at, 0), Piece(2, at + 2, 4)], [Piece(1, to, 5), Piece(2, to + 5, 8)])
    assert received.tolist() == [1, 2, 1, 2, 1, 3, 4, 5, 6, 3, 4, 5, 6, 255, 255, 255]
    group.swap([], [Piece(1, to, 0), Piece(2, to + 1, 14)])
    assert received.tolist() == [1] + [0] * 14 + [255]


@pytest.mark.parametrize("stream", [0, 1])
def test_on_a_gpu_nothing_is_exchanged_while_a_graph_is_recorded(monkeypatch: pytest.MonkeyPatch, stream: int):
    cuda = SimulatedCuda()
    streams = cuda.stream(), cuda.stream()
    launcher = SimpleNamespace(recording=lambda one: one.capture is not None)
    monkeypatch.setattr(lone_rank, "Launcher", lambda: launcher)
    group = on_cuda(cast(Any, cuda), streams[0], b"", 0, 4)
    source, target = cuda.malloc(8), cuda.malloc(8)
    ctypes.memset(source, 7, 8)
    ctypes.memset(target, 1, 8)
    pieces = [Piece(1, source, 8)], [Piece(1, target, 8)]
    cuda.begin_capture(streams[0], relaxed=False)
    group.swap(*pieces)
    graph = cuda.end_capture(streams[0])
    executable = cuda.instantiate(graph)
    cuda.launch(executable, streams[0])
    cuda.synchronize(streams[0])
    assert ctypes.string_at(target, 8) == b"\1" * 8
    on = streams[stream]
    group.swap(*pieces, stream=cast(int, on) if stream else 0)
    cuda.synchronize(on)
    assert ctypes.string_at(target, 8) == b"\7" * 8


def test_a_rank_that_runs_alone_gives_what_all_would(fused_path: Path):
    bundle = Bundle.open(fused_path)
    options = OnnxRuntimeOptions(device=Device.CPU, devices=(0, 1))
    executor = LoneExecutor(bundle, options)
    try:
        processes = executor._ranks._children  # pyright: ignore[reportPrivateUsage]
        assert len(processes) == 1
        with Kontext(bundle, executor) as kontext:
            kontext.load()
            result = kontext.edit(Image.new("RGB", (64, 64), "red"), "a cat", seed=1, steps=2)
            assert np.isfinite(result.outputs[0].latents).all()
            assert np.array_equal(*np.split(result.outputs[0].latents, 2)), "what the other would give is its own"
    finally:
        executor.close()


def test_a_mean_is_the_ranks_own():
    group = Absent(0, 2, lambda *_: pytest.fail("it copies nothing"), 0, lambda: False)
    mean = np.float32([1, 2])
    group.average(mean.ctypes.data, 2)
    group.close()
    assert mean.tolist() == [1, 2]
