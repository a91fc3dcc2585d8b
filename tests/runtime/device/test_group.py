"""What NCCL is asked for, by bindings that write it down, and what its errors become."""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from simulated_cuda import SimulatedCuda

from kontext_trt.engine.errors import ExecutorError, MissingDependencyError
from kontext_trt.runtime.device.cuda import CudaPython
from kontext_trt.runtime.device.group import NcclGroup, unique_id
from kontext_trt.runtime.flow.group import Group, Piece

ID = bytes(range(128))


class NCCLError(Exception):
    """The bindings' own."""


class Bindings:
    """The module `nccl.bindings.nccl`, of which all is called that this project calls."""

    NCCLError = NCCLError
    DataType = SimpleNamespace(Uint8=1, Float32=7)
    RedOp = SimpleNamespace(Avg=4)

    def __init__(self) -> None:
        self.did: list[tuple[Any, ...]] = []
        self.fail = ""

    class UniqueId:
        def __init__(self) -> None:
            self.memory = (ctypes.c_uint8 * 128)()
            self.ptr = ctypes.addressof(self.memory)

    def get_version(self) -> int:
        return 22809

    def get_unique_id(self) -> UniqueId:
        self._do("get_unique_id")
        made = Bindings.UniqueId()
        made.memory[:] = ID
        return made

    def comm_init_rank(self, size: int, key: UniqueId, rank: int) -> str:
        self._do("comm_init_rank", size, bytes(key.memory), rank)
        return "comm"

    def _do(self, *what: Any) -> None:
        self.did.append(what)
        if what[0] == self.fail:
            raise NCCLError("UnhandledCudaError (1): unhandled cuda error")

    def __getattr__(self, name: str) -> Any:
        if name not in ("send", "recv", "group_start", "group_end", "all_reduce"):
            raise AttributeError(name)
        return lambda *arguments: self._do(name, *arguments)


@pytest.fixture
def nccl(monkeypatch: pytest.MonkeyPatch) -> Bindings:
    bindings = Bindings()
    for name in ("nccl", "nccl.bindings"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace())  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "nccl.bindings.nccl", bindings)  # type: ignore[arg-type]
    return bindings


@pytest.fixture
def cuda() -> SimulatedCuda:
    return SimulatedCuda()


@pytest.fixture
def group(nccl: Bindings, cuda: SimulatedCuda) -> NcclGroup:
    made = NcclGroup(cuda, cuda.stream(), ID, 1, 3)
    assert nccl.did == [("comm_init_rank", 3, ID, 1)]
    assert cuda.calls["use"] == 1, "a communicator is of the thread's device"
    nccl.did.clear()
    return made


def test_an_id_is_bytes(nccl: Bindings):
    assert unique_id() == ID
    nccl.fail = "get_unique_id"
    with pytest.raises(ExecutorError, match=r"NCCL could not make the id of a group: UnhandledCudaError \(1\)"):
        unique_id()


def test_pieces_go_as_bytes_in_one_group(group: NcclGroup, nccl: Bindings, cuda: SimulatedCuda):
    (stream,) = cuda.streams
    at = cuda.stream_address(stream)
    group.swap([Piece(0, 256, 64), Piece(2, 512, 0)], [Piece(0, 1024, 32), Piece(2, 2048, 96)])
    assert nccl.did == [
        ("group_start",),
        ("send", 256, 64, 1, 0, "comm", at),
        ("recv", 1024, 32, 1, 0, "comm", at),
        ("recv", 2048, 96, 1, 2, "comm", at),
        ("group_end",),
    ]


def test_another_stream_is_taken(group: NcclGroup, nccl: Bindings):
    group.swap([Piece(0, 256, 64)], [Piece(0, 1024, 64)], 77)
    assert [call[-1] for call in nccl.did if call[0] in ("send", "recv")] == [77, 77]


def test_a_ranks_own_pieces_are_copied(group: NcclGroup, nccl: Bindings, cuda: SimulatedCuda):
    one, other = cuda.malloc(64), cuda.malloc(64)
    ctypes.memset(one, 7, 64)
    sends = [Piece(1, one, 16), Piece(1, one, 0), Piece(1, one + 32, 16)]
    receives = [Piece(1, other + 16, 16), Piece(1, other, 0), Piece(1, other + 48, 16)]
    group.swap(sends, receives)
    assert nccl.did == [("group_start",), ("group_end",)]
    assert cuda.calls["copy"] == 2
    cuda.synchronize(cuda.streams[0])
    found = ctypes.string_at(other, 64)
    assert found == b"".join([found[:16], b"\7" * 16, found[32:48], b"\7" * 16])
    assert found[:1] != b"\7"


def test_a_mean_is_of_float32_in_place(group: NcclGroup, nccl: Bindings, cuda: SimulatedCuda):
    group.average(4096, 24)
    group.average(4096, 24, 77)
    own = cuda.stream_address(cuda.streams[0])
    assert nccl.did == [("all_reduce", 4096, 4096, 24, 7, 4, "comm", on) for on in (own, 77)]


@pytest.mark.parametrize("call", ["send", "recv", "group_end"])
def test_an_error_ends_the_group_of_calls_and_is_said_in_words(group: NcclGroup, nccl: Bindings, call: str):
    """A group that is not ended would swallow all calls after it."""
    nccl.fail = call
    with pytest.raises(ExecutorError, match=r"NCCL could not exchange tokens \(rank 1 of 3\): Unhandled.*NCCL_DEBUG"):
        group.swap([Piece(0, 256, 64)], [Piece(0, 1024, 64)])
    assert nccl.did[-1] == ("group_end",)
    nccl.fail = "all_reduce"
    with pytest.raises(ExecutorError, match=r"NCCL could not average \(rank 1 of 3\)"):
        group.average(4096, 24)


def test_ranks_that_cannot_join_are_named(nccl: Bindings, cuda: SimulatedCuda):
    nccl.fail = "comm_init_rank"
    with pytest.raises(ExecutorError, match=r"NCCL could not join the others \(rank 0 of 2\).*end all ranks"):
        NcclGroup(cuda, cuda.stream(), ID, 0, 2)
    with pytest.raises(ValueError, match="rank 2 is none of 2 ranks"):
        NcclGroup(cuda, cuda.stream(), ID, 2, 2)
    with pytest.raises(ValueError, match="the id of a group has 128 bytes, not 3"):
        NcclGroup(cuda, cuda.stream(), b"abc", 0, 2)


def test_a_group_that_was_left_asks_nccl_for_nothing(group: NcclGroup, nccl: Bindings):
    """Nor does leaving it: NCCL would wait for a rank that is dead."""
    group.close()
    assert nccl.did == []
    with pytest.raises(ExecutorError, match="rank 1 has left its group"):
        group.average(4096, 24)
    group.close()


def test_what_is_missing_is_named_with_the_command(nccl: Bindings, monkeypatch: pytest.MonkeyPatch):
    def not_found() -> int:
        raise RuntimeError('Failure finding "libnccl.so.2"\nmore')

    monkeypatch.setattr(nccl, "get_version", not_found)
    with pytest.raises(
        MissingDependencyError, match=r'finding "libnccl.so.2"; install .*kontext-trt\[multi\]'
    ) as error:
        unique_id()
    assert "more" not in str(error.value)
    monkeypatch.setitem(sys.modules, "nccl.bindings.nccl", None)  # type: ignore[arg-type]
    with pytest.raises(MissingDependencyError, match=r"nccl4py is not installed; .*kontext-trt\[multi\]"):
        unique_id()


def test_it_is_a_group(group: NcclGroup):
    made: Group = group
    assert (made.rank, made.size, made.shares) == (1, 3, None)


def test_streams_follow_each_other_by_an_event_that_captures_take_in(monkeypatch: pytest.MonkeyPatch):
    """Not by one for the outside, which a capture only records."""
    called: list[tuple[Any, ...]] = []
    cuda = CudaPython.__new__(CudaPython)
    cuda._runtime = SimpleNamespace(cudaEventWaitDefault=0)
    monkeypatch.setattr(cuda, "_call", lambda *what: called.append(what))
    cuda.follow("side", "main", "event")
    assert called == [("cudaEventRecord", "event", "main"), ("cudaStreamWaitEvent", "side", "event", 0)]
