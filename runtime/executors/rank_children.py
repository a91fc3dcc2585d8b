"""Starts the processes of ranks, and ends them: when they are to, when they are forgotten, and with this process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from .channel import Channel, Region, pack
from .rank_job import RankJob

GRACE_S = 5.0
"""The seconds that the others have to answer when one has failed: they may have failed alike, and then all live on."""


class RankProcesses:
    """Holds what ranks live by: their processes, the ends of their channels that are not theirs, and a pipe."""

    def __init__(self, timeout_s: float) -> None:
        self.parent = os.getpid()
        self.children: list[subprocess.Popen[bytes]] = []
        self.channels: list[Channel] = []
        self._timeout_s = timeout_s
        theirs, ours = os.pipe()
        self._life, self._theirs = Connection(ours, readable=False), Connection(theirs, writable=False)
        _all.add(self)

    def start(self, job: RankJob, sockets: Mapping[int, int], command: Sequence[str] | None) -> None:
        """Start the process of a rank, and tell it what to do.

        Args:
            job: What that is.
            sockets: The descriptors of its sockets to the other ranks, by their numbers.
            command: The command that starts it, if it is not the usual one.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            calls, answers = Region(), Region()
            channel = Channel(Connection(_limited(ours, self._timeout_s).detach()), sending=calls, receiving=answers)
            self.channels.append(channel)
            passed = (theirs.fileno(), self._theirs.fileno(), answers.descriptor, calls.descriptor)
            child = subprocess.Popen(
                [*(command or rank_command()), *map(str, passed)],
                stdin=subprocess.DEVNULL,
                pass_fds=(*passed, *sockets.values()),
                start_new_session=True,  # what a terminal sends to all is for the one that asks: it decides
            )
        self.children.append(child)
        with contextlib.suppress(OSError):  # one that is gone at once is found by the first call
            channel.connection.send_bytes(channel.written(pack(replace(job, sockets=dict(sockets)))))

    def fate(self, rank: int) -> str:
        """Return how the process of a rank, whose socket is closed, has ended."""
        try:
            code = self.children[rank].wait(GRACE_S)
        except subprocess.TimeoutExpired:
            return "closed its socket"
        return f"was ended by {_signal_name(-code)}" if code < 0 else f"left with code {code}"

    def stopped(self, ranks: Sequence[int]) -> list[int]:
        """Return those of some ranks whose process a signal, or a debugger, has stopped."""
        return [rank for rank in ranks if _state(self.children[rank].pid) in ("T", "t")]

    def ended(self) -> list[int]:
        """Return the ranks whose process has ended, and let the kernel forget these. It may be called on any thread."""
        if os.getpid() != self.parent:
            return []
        return [rank for rank, child in enumerate(self.children) if child.poll() is not None]

    def kill(self) -> None:
        """End all processes, if this is the one that started them, and wait for nothing; on any thread."""
        if os.getpid() == self.parent:
            for child in self.children:
                child.kill()

    def end(self) -> None:
        """End all processes, let go of them, and wait until they are gone. It may be called again."""
        self.kill()
        self.let_go()
        if os.getpid() == self.parent:
            for child in self.children:
                with contextlib.suppress(subprocess.TimeoutExpired):  # one that a driver holds is not waited for
                    child.wait(GRACE_S)

    def let_go(self) -> None:
        """Close the channels and the pipe; without the pipe processes end by themselves."""
        for one in (*self.channels, self._life, self._theirs):
            one.close()


_all: weakref.WeakSet[RankProcesses] = weakref.WeakSet()


def _after_fork() -> None:
    """Let go of what a fork has copies of: ranks end with the process that started them, not with its forks."""
    for one in list(_all):
        one.let_go()


os.register_at_fork(after_in_child=_after_fork)


def rank_command(module: str = f"{__package__}.rank_process") -> tuple[str, ...]:
    """Return the command that starts a rank, by the function `main` of a module.

    It imports from where this process does, and from where this package lies, but never from the working directory. It
    is told so when it has started: a PYTHONPATH would have it take the standard library's own start from there.
    """
    package = str(Path(__file__).parents[len(__name__.split(".")) - 1])
    paths = [path for path in sys.path if path]
    paths += [package] if package not in paths else []
    code = f"import sys; sys.path[:] = {paths!r}; from {module} import main; main()"
    return (sys.executable, "-c", code)


def _limited(one: socket.socket, seconds: float) -> socket.socket:
    """Let a socket fail that cannot be written to, or read from, for some seconds."""
    whole = int(seconds)
    for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
        one.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", whole, max(1, int((seconds - whole) * 1e6))))
    return one


def _state(process: int) -> str:
    """Return the letter that the kernel has for the state of a process, "" where it tells none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
