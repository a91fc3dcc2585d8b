"""Starts the processes of a group's ranks, asks all of them the same, and ends all when one fails."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import weakref
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any

from ...engine import errors
from ...engine.errors import ExecutorError, KontextError
from .options import Device
from .rank_children import GRACE_S, RankProcesses
from .rank_job import RankJob
from .rank_process import Answer, Call


class Ranks:
    """Holds the processes of a group. One call at a time. When it is forgotten, or this process ends, they end.

    Args:
        jobs: What each is to do, by rank; `sockets` are made here.
        timeout_s: The seconds after which a rank that does not answer is given up.
        command: The command that starts one, for tests; it gets two descriptors as arguments.
    """

    def __init__(self, jobs: Sequence[RankJob], *, timeout_s: float, command: Sequence[str] | None = None) -> None:
        self._timeout_s, self._names = timeout_s, [_name(job) for job in jobs]
        self._reason = ""
        self._moving = False
        self._processes = RankProcesses(timeout_s)
        self._children, self._connections = self._processes.children, self._processes.connections
        self._end = weakref.finalize(self, self._processes.end)
        with contextlib.ExitStack() as stack:
            try:
                pairs = _socket_pairs(len(jobs), stack) if jobs[0].options.device is Device.CPU else {}
                for job in jobs:
                    peers = {other: ours.fileno() for (rank, other), ours in pairs.items() if rank == job.rank}
                    self._processes.start(job, peers, command)
            except BaseException:
                self.end("they could not be started")
                raise

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
            KontextError: All raised one of that kind; they can be asked again.
            ExecutorError: A process has ended, some ranks have failed, or one does not answer in time. All are ended,
                and cannot be asked again.
        """
        calls = {rank: Call(method=method, arguments=tuple(one)) for rank, one in enumerate(arguments)}
        answers = self._answers(calls)
        return [answers[rank] for rank in range(len(self._children))]

    def _answers(self, calls: Mapping[int, Call]) -> dict[int, Any]:
        if os.getpid() != self._processes.parent:
            raise _foreign()
        if self._reason:
            raise ExecutorError(f"the devices were given up earlier: {self._reason}; open the bundle again")
        messages = {rank: ForkingPickler.dumps(call) for rank, call in calls.items()}  # before any is sent
        asked: list[int] = []
        answers: dict[int, Answer] = {}
        try:
            for rank, message in messages.items():
                self._send(rank, message)
                asked.append(rank)
            self._collect(asked, answers)
        except ExecutorError:
            raise
        except BaseException:  # an interrupt, most likely: the answers are still to come
            self._settle([rank for rank in asked if rank not in answers])
            raise
        return {rank: answer.value for rank, answer in answers.items()}

    def _send(self, rank: int, message: memoryview) -> None:
        self._moving = True
        try:
            self._connections[rank].send_bytes(message)
        except BlockingIOError:
            raise self.end(f"{self._names[rank]} did not take what it was asked for {self._timeout_s:g} s") from None
        except OSError:
            self._fail(rank)
        self._moving = False

    def _receive(self, rank: int, answers: dict[int, Answer]) -> None:
        self._moving = True
        try:
            answers[rank] = self._connections[rank].recv()
        except BlockingIOError:
            raise self.end(f"{self._names[rank]} stopped in its answer for {self._timeout_s:g} s") from None
        except (EOFError, OSError):
            self._fail(rank)
        self._moving = False

    def _collect(self, ranks: Sequence[int], answers: dict[int, Answer]) -> None:
        """Wait for answers, and raise what all ranks raised, or ExecutorError when they do not agree."""
        deadline, failed = time.monotonic() + self._timeout_s, False
        while len(answers) < len(ranks):
            waiting = {self._connections[rank]: rank for rank in ranks if rank not in answers}
            ready = wait(list(waiting), max(0.0, deadline - time.monotonic()))
            for connection in ready:
                assert isinstance(connection, Connection)
                rank = waiting[connection]
                self._receive(rank, answers)
                if answers[rank].error and not failed:
                    failed, deadline = True, min(deadline, time.monotonic() + GRACE_S)
            if not ready:
                break
        errors_of = {rank: answer for rank, answer in answers.items() if answer.error}
        if errors_of and (len(errors_of) < len(ranks) or len({one.error for one in errors_of.values()}) > 1):
            rank, answer = next(iter(errors_of.items()))
            raise self.end(f"{self._names[rank]} failed: {answer.words}")
        if len(answers) < len(ranks):
            late = ", ".join(self._names[rank] for rank in ranks if rank not in answers)
            raise self.end(f"{late} did not answer for {self._timeout_s:g} s")
        if errors_of:
            raise _raised(errors_of[min(errors_of)])

    def _settle(self, ranks: Sequence[int]) -> None:
        """Wait a little for answers that nobody wants any more; end all if they do not come.

        All are ended, too, if the interrupt, or another one, came amid a message: what follows it cannot be read.
        """
        deadline = time.monotonic() + 2 * GRACE_S
        try:
            if self._moving:
                self.end("a message to or from them was interrupted")
                return
            for rank in ranks:
                if not self._connections[rank].poll(max(0.0, deadline - time.monotonic())):
                    self.end(f"{self._names[rank]} did not stop when it was interrupted")
                    return
                self._receive(rank, {})
        except ExecutorError:  # the process of one has ended, and all with it
            return
        except BaseException:
            self.end("waiting for them was interrupted")
            raise

    def _fail(self, rank: int) -> None:
        """End all since the process of one has ended, and raise ExecutorError with the reason."""
        raise self.end(f"the process of {self._names[rank]} {self._processes.fate(rank)}")

    def end(self, reason: str) -> ExecutorError:
        """End all processes, and return the error to raise. They cannot be asked again."""
        if os.getpid() != self._processes.parent:
            return _foreign()
        self._reason = self._reason or reason
        self._end()
        return ExecutorError(f"{reason}; the other devices were given up with it: open the bundle again")

    def close(self) -> None:
        """End all processes. Closing twice is allowed, and in a forked process it does nothing."""
        self.end("it was closed")


def _foreign() -> ExecutorError:
    return ExecutorError("the devices belong to the process that opened them; open the bundle in this one itself")


def _name(job: RankJob) -> str:
    return f"cpu:{job.rank}" if job.options.device is Device.CPU else f"cuda:{job.options.device_id}"


def _socket_pairs(size: int, stack: contextlib.ExitStack) -> dict[tuple[int, int], socket.socket]:
    """Return a connected socket for each rank and each other rank; `stack` closes them."""
    pairs: dict[tuple[int, int], socket.socket] = {}
    for rank in range(size):
        for other in range(rank):
            pairs[rank, other], pairs[other, rank] = map(stack.enter_context, socket.socketpair())
    return pairs


def _raised(answer: Answer) -> KontextError:
    """Return the error that a rank raised, with its words."""
    kind = getattr(errors, answer.error, None)
    if isinstance(kind, type) and issubclass(kind, KontextError):
        return kind(answer.words)
    return ExecutorError(answer.words)
