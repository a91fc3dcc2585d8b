"""Starts the processes of a group's ranks, asks all of them the same, and ends all when one fails."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from ...engine import errors
from ...engine.errors import ExecutorError, GpuMemoryError, KontextError
from ..cancelling import after_cancel
from .channel import Packed, pack
from .options import Device
from .rank_children import GRACE_S, RankProcesses
from .rank_job import RankJob
from .rank_process import Answer, Call

CANCELLED_S = 180.0
"""The seconds that ranks have for what is under way when its request is cancelled: a step, or loading a network."""


class Ranks:
    """Holds the processes of a group. One call at a time. When it is forgotten, or this process ends, they end.

    Args:
        jobs: What each is to do, by rank; `sockets` are made here.
        timeout_s: The seconds after which a rank that does not answer is given up.
        command: The command that starts one, for tests; it gets four descriptors as arguments.
    """

    def __init__(self, jobs: Sequence[RankJob], *, timeout_s: float, command: Sequence[str] | None = None) -> None:
        self._timeout_s, self._names = timeout_s, [_name(job) for job in jobs]
        self._reason = ""
        self._moving = False
        self._processes = RankProcesses(timeout_s)
        self._children, self._channels = self._processes.children, self._processes.channels
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
    def lost(self) -> str:
        """The reason that they can be asked nothing any more, "" while they can.

        A process that has ended is seen, although nobody has asked it anything since, and the others, which can do
        nothing without it, are ended: they hold memory. It may be looked at on any thread.
        """
        ended = self._processes.ended()
        if ended and not self._reason:
            self._give_up(self._fate(ended[0]))
        return self._reason

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of every rank with the same arguments, in which they exchange something; see `ask_each`."""
        call = pack(Call(method=method, arguments=arguments))
        return self._answers(dict.fromkeys(range(len(self._children)), call), 1, apart=False)

    def ask_apart(self, method: str, *arguments: Any, ranks: Iterable[int] | None = None) -> list[Any]:
        """Call a method of ranks that exchange nothing in it: of every rank, or of some.

        Returns:
            What each returned.

        Raises:
            KontextError: One raised that; all can be asked again.
            ExecutorError: A process has ended, or one does not answer in time, or soon after the request is cancelled.
                All are ended; but not where there is no memory to ask them.
        """
        call = pack(Call(method=method, arguments=arguments))
        asked = range(len(self._children)) if ranks is None else ranks
        return self._answers(dict.fromkeys(asked, call), 1, apart=True)

    def ask_each(self, method: str, arguments: Sequence[Sequence[Any]], *, times: int = 1) -> list[Any]:
        """Call a method of every rank with arguments of its own.

        Args:
            method: The method.
            arguments: Those of each rank.
            times: How many times as long as usual they may take.

        Returns:
            What each returned.

        Raises:
            KontextError: All raised one of that kind; they can be asked again.
            GpuMemoryError: Some had no memory, and all are ended.
            ExecutorError: A process has ended, some ranks have failed, or one does not answer in time, or soon after
                the request is cancelled. All are ended, and cannot be asked again; but not where there is no memory to
                ask them.
        """
        calls = [pack(Call(method=method, arguments=tuple(one))) for one in arguments]  # before any is sent
        return self._answers(dict(enumerate(calls)), times, apart=False)

    def _answers(self, calls: Mapping[int, Packed], times: int, *, apart: bool) -> list[Any]:
        """Send calls and return what was answered, in the order of the ranks."""
        if os.getpid() != self._processes.parent:
            raise _foreign()
        if self._reason:
            self._end()  # whoever gave them up on another thread has left that to this one
            raise ExecutorError(f"the devices were given up earlier: {self._reason}; open the bundle again")
        try:
            messages = {rank: self._channels[rank].written(call) for rank, call in calls.items()}
        except MemoryError as error:  # none was sent
            self._trim(calls)
            raise ExecutorError(
                f"there is not enough memory to hand the devices what they are to do: {error}"
            ) from error
        asked: list[int] = []
        answers: dict[int, Answer] = {}
        try:
            with after_cancel(
                lambda seconds: self._overdue([one for one in messages if one not in answers], seconds, times)
            ):
                for rank, message in messages.items():
                    asked.append(rank)
                    self._send(rank, message)
                self._collect(asked, answers, times * self._timeout_s, apart=apart)
        except ExecutorError:
            raise
        except BaseException:  # an interrupt, most likely: the answers are still to come
            self._settle([rank for rank in asked if rank not in answers])
            raise
        self._trim(calls)
        return [answers[rank].value for rank in messages]

    def _trim(self, ranks: Iterable[int]) -> None:
        for rank in ranks:
            self._channels[rank].trim()

    def _send(self, rank: int, message: bytes) -> None:
        self._moving = True
        try:
            self._channels[rank].connection.send_bytes(message)
        except BlockingIOError:
            raise self.end(f"{self._names[rank]} did not take what it was asked for {self._timeout_s:g} s") from None
        except OSError:
            self._fail(rank)
        self._moving = False

    def _receive(self, rank: int, answers: dict[int, Answer]) -> None:
        self._moving = True
        try:
            answers[rank] = self._channels[rank].receive(copied=True)
        except MemoryError as error:
            words = f"there is not enough memory for its answer: {error}"
            answers[rank] = Answer(error=ExecutorError.__name__, words=words)
        except BlockingIOError:
            raise self.end(f"{self._names[rank]} stopped in its answer for {self._timeout_s:g} s") from None
        except (EOFError, OSError):
            self._fail(rank)
        self._moving = False

    def _collect(self, ranks: Sequence[int], answers: dict[int, Answer], seconds: float, *, apart: bool) -> None:
        """Wait for answers, and raise what ranks raised: any of them `apart`, else all alike, or they are ended."""
        deadline, failed = time.monotonic() + seconds, False
        while len(answers) < len(ranks):
            waiting = {self._channels[rank].connection: rank for rank in ranks if rank not in answers}
            ready = wait(list(waiting), max(0.0, deadline - time.monotonic()))
            for connection in ready:
                assert isinstance(connection, Connection)
                rank = waiting[connection]
                self._receive(rank, answers)
                if answers[rank].error and not failed and not apart:
                    failed, deadline = True, min(deadline, time.monotonic() + GRACE_S)
            if not ready:
                break
        errors_of = {rank: answer for rank, answer in answers.items() if answer.error}
        alike = len(errors_of) == len(ranks) and len({one.error for one in errors_of.values()}) == 1
        if errors_of and not apart and not alike:
            rank, answer = next(iter(errors_of.items()))
            ended = self.end(f"{self._names[rank]} failed: {answer.words}")
            raise GpuMemoryError(str(ended)) if answer.error == GpuMemoryError.__name__ else ended
        if len(answers) < len(ranks):
            raise self.end(self._silent([rank for rank in ranks if rank not in answers], f"{seconds:g} s"))
        if errors_of:
            raise _raised(errors_of[min(errors_of)])

    def _silent(self, ranks: Sequence[int], time: str) -> str:
        """Say that ranks have not answered for a time: only those that are stopped, since others wait for them."""
        stopped = self._processes.stopped(ranks)
        names = ", ".join(self._names[rank] for rank in stopped or ranks)
        return f"{names} did not answer for {time}" + (": stopped by a signal or a debugger" if stopped else "")

    def _overdue(self, late: Sequence[int], seconds: float, times: int) -> bool:
        """Give all up if ranks have not answered some seconds after a cancel, and return whether; on any thread."""
        limit = GRACE_S if self._processes.stopped(late) else times * CANCELLED_S
        if not late or seconds < limit:
            return False
        self._give_up(self._silent(late, f"{seconds:.3g} s after the request was cancelled"))
        return True

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
                if not self._channels[rank].connection.poll(max(0.0, deadline - time.monotonic())):
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
        raise self.end(self._fate(rank))

    def _fate(self, rank: int) -> str:
        return f"the process of {self._names[rank]} {self._processes.fate(rank)}"

    def _give_up(self, reason: str) -> None:
        """End all processes, on any thread: what is open is closed by the one that asks, which finds them gone."""
        self._reason = self._reason or reason
        self._processes.kill()

    def end(self, reason: str) -> ExecutorError:
        """End all processes, and return the error to raise. They cannot be asked again."""
        if os.getpid() != self._processes.parent:
            return _foreign()
        self._reason = self._reason or reason
        self._end()
        return ExecutorError(f"{self._reason}; the other devices were given up with it: open the bundle again")

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
