"""Starts the processes of a group's ranks, asks all of them the same, and ends all when one fails."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import Any

from ...engine import errors
from ...engine.errors import ExecutorError, KontextError
from .options import Device
from .rank import RankJob
from .rank_process import Answer, Call

GRACE_S = 5.0
"""The seconds that the others have to answer when one has failed: they may have failed alike, and then all live on."""


class Ranks:
    """Holds the processes of a group. One call at a time.

    Args:
        jobs: What each is to do, by rank; `sockets` are made here.
        timeout_s: The seconds after which a rank that does not answer is given up.
        command: The command that starts one, for tests; it gets two descriptors as arguments.
    """

    def __init__(self, jobs: Sequence[RankJob], *, timeout_s: float, command: Sequence[str] | None = None) -> None:
        self._timeout_s, self._names = timeout_s, [_name(job) for job in jobs]
        self._process = os.getpid()
        self._reason = ""
        self._children: list[subprocess.Popen[bytes]] = []
        self._connections: list[Connection] = []
        life, self._life = os.pipe()
        pairs = _socket_pairs(len(jobs)) if jobs[0].options.device is Device.CPU else {}
        try:
            for job in jobs:
                peers = {other: ours.fileno() for (rank, other), ours in pairs.items() if rank == job.rank}
                self._start(job, peers, life, command or _command())
        except BaseException:
            self.end("they could not be started")
            raise
        finally:
            os.close(life)
            for one in pairs.values():
                one.close()

    def _start(self, job: RankJob, sockets: Mapping[int, int], life: int, command: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            passed = (theirs.fileno(), life)
            child = subprocess.Popen(
                [*command, *map(str, passed)],
                stdin=subprocess.DEVNULL,
                pass_fds=(*passed, *sockets.values()),
                env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        self._children.append(child)
        self._connections.append(Connection(ours.detach()))
        with contextlib.suppress(OSError):  # one that is gone at once is found by the first call
            self._connections[-1].send(_with_sockets(job, sockets))

    @property
    def reason(self) -> str:
        """The reason that the processes were ended for, "" while they run."""
        return self._reason

    @property
    def lost(self) -> str:
        """The reason that they can be asked nothing any more, "" while they can.

        A process that has ended is seen, although nobody has asked it anything since.
        """
        ended = (name for name, child in zip(self._names, self._children, strict=True) if child.poll() is not None)
        return self._reason or next((f"the process of {name} has ended" for name in ended), "")

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of every rank with the same arguments, and return what each returned."""
        return self.ask_each(method, [arguments] * len(self._children))

    def ask_one(self, rank: int, method: str, *arguments: Any) -> Any:
        """Call a method of one rank, and return what it returned."""
        return self._answers({rank: Call(method=method, arguments=arguments)})[rank]

    def ask_each(self, method: str, arguments: Sequence[Sequence[Any]]) -> list[Any]:
        """Call a method of every rank with arguments of its own.

        Returns:
            What each returned.

        Raises:
            KontextError: All raised that; they can be asked again.
            ExecutorError: A process has ended, some ranks have failed, or one does not answer in time. All are ended,
                and cannot be asked again.
        """
        calls = {rank: Call(method=method, arguments=tuple(one)) for rank, one in enumerate(arguments)}
        answers = self._answers(calls)
        return [answers[rank] for rank in range(len(self._children))]

    def _answers(self, calls: Mapping[int, Call]) -> dict[int, Any]:
        if self._reason:
            raise ExecutorError(f"the devices were given up earlier: {self._reason}; open the bundle again")
        answers: dict[int, Answer] = {}
        try:
            for rank, call in calls.items():
                try:
                    self._connections[rank].send(call)
                except OSError:
                    self._fail(rank)
            self._collect(list(calls), answers)
        except ExecutorError:
            raise
        except BaseException:  # an interrupt, most likely: the answers are still to come
            self._settle([rank for rank in calls if rank not in answers])
            raise
        return {rank: answer.value for rank, answer in answers.items()}

    def _collect(self, ranks: Sequence[int], answers: dict[int, Answer]) -> None:
        """Wait for answers, and raise what all ranks raised, or ExecutorError when they do not agree."""
        deadline, failed = time.monotonic() + self._timeout_s, False
        while len(answers) < len(ranks):
            waiting = {self._connections[rank]: rank for rank in ranks if rank not in answers}
            ready = wait(list(waiting), max(0.0, deadline - time.monotonic()))
            for connection in ready:
                assert isinstance(connection, Connection)
                rank = waiting[connection]
                try:
                    answers[rank] = connection.recv()
                except (EOFError, OSError):
                    self._fail(rank)
                if answers[rank].error and not failed:
                    failed, deadline = True, min(deadline, time.monotonic() + GRACE_S)
            if not ready:
                break
        errors_of = {rank: answer for rank, answer in answers.items() if answer.error}
        if errors_of and (len(errors_of) < len(ranks)):
            rank, answer = next(iter(errors_of.items()))
            raise self.end(f"{self._names[rank]} failed: {answer.words}")
        if len(answers) < len(ranks):
            late = ", ".join(self._names[rank] for rank in ranks if rank not in answers)
            raise self.end(f"{late} did not answer for {self._timeout_s:g} s")
        if errors_of:
            raise _raised(errors_of[min(errors_of)])

    def _settle(self, ranks: Sequence[int]) -> None:
        """Wait a little for answers that nobody wants any more; end all if they do not come."""
        deadline = time.monotonic() + 2 * GRACE_S
        for rank in ranks:
            connection = self._connections[rank]
            if not connection.poll(max(0.0, deadline - time.monotonic())):
                self.end(f"{self._names[rank]} did not stop when it was interrupted")
                return
            with contextlib.suppress(EOFError, OSError):
                connection.recv()

    def _fail(self, rank: int) -> None:
        """End all since the process of one has ended, and raise ExecutorError with the reason."""
        child = self._children[rank]
        try:
            code = child.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            raise self.end(f"the process of {self._names[rank]} closed its socket") from None
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"left with code {code}"
        raise self.end(f"the process of {self._names[rank]} {how}")

    def end(self, reason: str) -> ExecutorError:
        """End all processes, and return the error to raise. They cannot be asked again."""
        self._reason = self._reason or reason
        if os.getpid() != self._process:
            return ExecutorError("the devices belong to the process that opened them")
        for child in self._children:
            child.kill()
        for child in self._children:
            child.wait()
        for connection in self._connections:
            connection.close()
        with contextlib.suppress(OSError):
            os.close(self._life)
        return ExecutorError(f"{reason}; the other devices were given up with it: open the bundle again")

    def close(self) -> None:
        """End all processes. Closing twice is allowed."""
        if not self._reason:
            self.end("it was closed")


def _command() -> tuple[str, ...]:
    """Return the command that starts a rank; the working directory is not on its path."""
    code = f"import sys; sys.path[:] = filter(None, sys.path); from {__package__}.rank_process import main; main()"
    return (sys.executable, "-c", code)


def _name(job: RankJob) -> str:
    return f"cpu:{job.rank}" if job.options.device is Device.CPU else f"cuda:{job.options.device_id}"


def _socket_pairs(size: int) -> dict[tuple[int, int], socket.socket]:
    """Return a connected socket for each rank and each other rank."""
    pairs: dict[tuple[int, int], socket.socket] = {}
    for rank in range(size):
        for other in range(rank):
            pairs[rank, other], pairs[other, rank] = socket.socketpair()
    return pairs


def _with_sockets(job: RankJob, sockets: Mapping[int, int]) -> RankJob:
    return replace(job, sockets=dict(sockets))


def _raised(answer: Answer) -> KontextError:
    """Return the error that a rank raised, with its words."""
    kind = getattr(errors, answer.error, None)
    if isinstance(kind, type) and issubclass(kind, KontextError):
        return kind(answer.words)
    return ExecutorError(answer.words)
