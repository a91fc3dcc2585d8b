"""A rank on a GPU joins the others on its executor's stream, and plans memory for what it runs itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kontext_trt import BudgetError, Bundle, ExecutorError
from kontext_trt.engine.system.gpus import Gpu
from kontext_trt.runtime.executors import rank_cuda
from kontext_trt.runtime.executors.options import OnnxRuntimeOptions
from kontext_trt.runtime.executors.rank_job import RankJob

GPUS = tuple(Gpu(index=number, name="NVIDIA X", major=9, minor=0, memory_bytes=1 << 37) for number in range(2))


def job(path: Path, rank: int) -> RankJob:
    options = OnnxRuntimeOptions(device="cuda", device_id=rank)  # pyright: ignore[reportArgumentType]
    return RankJob(bundle=str(path), options=options, rank=rank, size=2, sockets={})


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_joins_on_its_stream_and_plans_text_on_the_first_alone(
    fused_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int
):
    made: dict[str, Any] = {}

    class Executor:
        def __init__(self, bundle: Bundle, engines: Any, cuda: Any, plan: Any, options: Any, *, join: Any) -> None:
            made.update(engines=engines, plan=plan)
            assert engines.group is None
            made["joined"] = join("its stream")

    monkeypatch.setattr(rank_cuda, "find_gpus", lambda: (GPUS, ""))
    monkeypatch.setattr(rank_cuda, "import_onnxruntime", lambda: SimpleNamespace(set_default_logger_severity=int))
    monkeypatch.setattr(rank_cuda, "fused_architecture", lambda bundle, gpu: f"sm of {gpu.index}")
    monkeypatch.setattr(
        rank_cuda, "CudaPython", lambda device: SimpleNamespace(device=device, memory=lambda: (1 << 36, 1 << 37))
    )
    monkeypatch.setattr(rank_cuda, "OnnxRuntimeEngines", lambda *given: SimpleNamespace(given=given, group=None))
    monkeypatch.setattr(rank_cuda, "NcclGroup", lambda *given: ("group", *given[1:]))
    monkeypatch.setattr(rank_cuda, "DeviceExecutor", Executor)
    monkeypatch.setattr(rank_cuda, "obstacles", lambda bundle, components, gpu: iter(()))
    monkeypatch.setattr(rank_cuda, "unique_id", lambda: b"its own")
    made_ready = rank_cuda.CudaRank(Bundle.open(fused_path), job(fused_path, rank))
    assert (made_ready.meeting, made) == (b"its own", {})
    executor, group = made_ready.open(b"id")
    assert isinstance(executor, Executor)
    assert group == made["joined"] == made["engines"].group == ("group", "its stream", b"id", rank, 2)
    assert made["engines"].given[2] == f"sm of {rank}"
    assert made["engines"].given[1].device == rank
    assert ({"t5", "clip"} <= made["plan"].residencies.keys()) is (rank == 0)
    assert ("vae_encoder" in made["plan"].residencies) is (rank == 1)
    assert {"denoiser", "conditioner", "vae_decoder"} <= made["plan"].residencies.keys()


def test_a_gpu_that_has_no_kernels_for_the_bundle_is_refused_with_what_it_lacks(
    fused_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rank_cuda, "find_gpus", lambda: (GPUS, ""))
    monkeypatch.setattr(rank_cuda, "unique_id", lambda: pytest.fail("it is refused before that"))
    with pytest.raises(ExecutorError, match=r"NVIDIA X cannot share requests with others: .*denoiser is in fp32"):
        rank_cuda.CudaRank(Bundle.open(fused_path), job(fused_path, 1))


def test_a_budget_that_is_too_small_is_said_before_ranks_wait_for_each_other(
    fused_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rank_cuda, "find_gpus", lambda: (GPUS, ""))
    monkeypatch.setattr(rank_cuda, "obstacles", lambda bundle, components, gpu: iter(()))
    monkeypatch.setattr(rank_cuda, "unique_id", lambda: pytest.fail("it is refused before that"))
    monkeypatch.setattr(rank_cuda, "CudaPython", lambda device: SimpleNamespace(memory=lambda: (1 << 20, 1 << 37)))
    with pytest.raises(BudgetError):
        rank_cuda.CudaRank(Bundle.open(fused_path), job(fused_path, 1))
