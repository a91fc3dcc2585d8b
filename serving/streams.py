"""Sends events as they come: server-sent events in OpenAI's form, which end with `completed` or with an error."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from .refusals import Refusal, refusal_of
from .work import watched

Emit = Callable[[str, Mapping[str, Any]], Awaitable[None]]
"""A function that sends an event of a type."""

logger = logging.getLogger(__name__)


class EventStream:
    """Answers with events.

    The answer begins with the first event, so that what is refused before has its own status; what fails later is an
    `error` event in the same form.

    Args:
        work: What makes the events, given the function that sends one.
        seconds: The time that it has.
        ended: What is called at the end, whatever came of it.
    """

    def __init__(
        self, work: Callable[[Emit], Coroutine[Any, Any, None]], seconds: float, ended: Callable[[], None]
    ) -> None:
        self._work, self._seconds, self._ended = work, seconds, ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def emit(kind: str, value: Mapping[str, Any]) -> None:
            nonlocal begun
            if not begun:
                begun = True
                headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
            data = b"event: " + kind.encode() + b"\ndata: " + msgspec.json.encode(value) + b"\n\n"
            await send({"type": "http.response.body", "body": data, "more_body": True})

        try:
            await watched(self._work(emit), receive, self._seconds)
        except Exception as error:
            refusal = refusal_of(error)
            scope["kontext.log"]["error"] = refusal.code
            if refusal.status == 500:
                logger.exception("a stream failed")
            if not begun:
                await _said(refusal, scope, receive, send)
                return
            await emit("error", {"type": "error", **refusal.body()})
        finally:
            self._ended()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _said(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    await refusal.response()(scope, receive, send)
