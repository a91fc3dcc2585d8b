"""Ranks that do what a test asks them for, and what tests look at of their processes."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stub_rank import COMMAND

from kontext_trt.runtime.executors import rank_children
from kontext_trt.runtime.executors.options import OnnxRuntimeOptions
from kontext_trt.runtime.executors.rank_job import RankJob
from kontext_trt.runtime.executors.ranks import Ranks

Start = Callable[..., Ranks]


def jobs(size: int = 2) -> list[RankJob]:
    options = OnnxRuntimeOptions(device="cpu")
    return [RankJob(bundle="none", options=options, rank=rank, size=size, sockets={}) for rank in range(size)]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts stub ranks, and looks that nothing of them is left."""
    started: list[tuple[Ranks, list[int]]] = []

    def make(size: int = 2, *, timeout_s: float = 60, command: tuple[str, ...] = COMMAND) -> Ranks:
        made = Ranks(jobs(size), timeout_s=timeout_s, command=command)
        started.append((made, [child.pid for child in made._children]))
        return made

    yield make
    for made, pids in started:
        made.close()
        assert all(is_gone(pid) for pid in pids)


def is_gone(pid: int) -> bool:
    """Also no zombie."""
    return not Path(f"/proc/{pid}").exists()


def hasten(made: Ranks, seconds: float) -> None:
    """Give ranks that have started, which may take longer, as long as this."""
    made._timeout_s = seconds
    for channel in made._channels:
        with socket.socket(fileno=os.dup(channel.connection.fileno())) as one:
            rank_children._limited(one, seconds)


def pids_of(made: Ranks) -> list[int]:
    return [pid for _, pid in made.ask("tell")]
