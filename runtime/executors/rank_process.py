"""Runs a rank in a process of its own, which ends with the one that started it.

What is asked for comes through a channel, and so do the answers. A pipe that closes ends the process at once, even
while a GPU computes something that will never end since another rank is gone.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from ...engine.errors import KontextError
from .channel import Channel, Region, pack

if TYPE_CHECKING:
    from .rank import Rank

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Asks a rank for a method with arguments."""

    method: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Carries what a method returned, or what it raised: the name of one of the project's errors, and its words."""

    value: Any = None
    error: str = ""
    words: str = ""


_NO_MEMORY = Answer(error="ExecutorError", words="there is not enough memory on this machine")


def main() -> None:
    """Answer calls until the channel closes.

    The arguments are the descriptors of its socket, of a pipe that closes when the other process ends, and of the
    memory that answers are written to and that calls are read from.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all: whoever asked decides
    with contextlib.suppress(OSError):
        os.dup2(2, 1)  # what libraries print is not what the program that asks prints
    faulthandler.enable()
    socket, life, answers, calls = map(int, sys.argv[1:5])
    channel = Channel(Connection(socket), sending=Region(answers), receiving=Region(calls))
    threading.Thread(target=_end_with, args=(life,), daemon=True).start()
    from .rank import Rank
    from .rank_job import RankJob

    job = channel.receive(copied=True)
    assert isinstance(job, RankJob)
    logging.basicConfig(level=logging.WARNING, format=f"device {job.options.device_id}: %(message)s", stream=sys.stderr)
    rank = cache(lambda: Rank(job))
    while True:
        call = _received(channel)
        answer = _NO_MEMORY if call is None else _answer(rank, call)
        try:
            message = channel.written(pack(answer))
        except MemoryError:
            message = channel.written(pack(_NO_MEMORY))
        del call, answer  # whose arrays lie in memory that the next ones are written to
        try:
            channel.connection.send_bytes(message)
        except OSError:  # nobody waits for it any more
            os._exit(0)


def _received(channel: Channel) -> Call | None:
    """Return what is asked for next, None if there was no memory for it. Ends the process when nobody can ask."""
    try:
        return channel.receive(copied=False)
    except (EOFError, OSError):
        os._exit(0)
    except MemoryError:
        return None


def _answer(rank: Callable[[], Rank], call: Call) -> Answer:
    """Do what is asked for, and return what came of it."""
    try:
        return Answer(value=getattr(rank(), call.method)(*call.arguments))
    except KontextError as error:
        return Answer(error=_public_name(error), words=str(error))
    except MemoryError:
        return _NO_MEMORY
    except Exception as error:  # nobody else would see it
        logger.exception("a rank failed")
        words = "".join(traceback.format_exception_only(error)).strip()
        return Answer(error="ExecutorError", words=words)


def _public_name(error: KontextError) -> str:
    """Return the name of an error's class, or of the nearest above it that callers know."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == KontextError.__module__)


def _end_with(life: int) -> None:
    """End this process when the other end of a pipe closes, whatever it does."""
    os.read(life, 1)
    os._exit(1)


if __name__ == "__main__":
    main()
