"""Stands before every route: who may call, under which name, and what the log says of it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .options import ServingOptions
from .playground.files import is_playground
from .refusals import Refusal
from .service import Service

OPEN_ROUTES = frozenset({"/healthz", "/readyz", "/review"})
"""The routes that need no key: they say nothing of what is made."""
REVIEWED = "/review/"
"""The beginning of the routes that need the key of who reviews."""

access_log = logging.getLogger(f"{__name__}.access")


class Guard:
    """Lets through what has a known name, origin and key, gives each request a number, and logs and counts it."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service
        options = service.options
        self._keys = tuple(map(_digest, options.keys))
        self._review_keys = () if options.review is None else tuple(map(_digest, options.review.keys))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, headers = time.monotonic(), Headers(scope=scope)
        behind = self._service.options.replica != ""
        number = headers.get("x-request-id", "")[:80] if behind else secrets.token_hex(8)
        log: dict[str, Any] = {}
        scope["kontext.log"] = log
        status = 0

        async def marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                said = MutableHeaders(scope=message)
                if not behind:
                    said["x-request-id"] = number
                said["x-content-type-options"] = "nosniff"
            await send(message)

        try:
            await self._checked(scope, headers, receive, marked)
        except asyncio.CancelledError:  # a server such as Ray's cancels what it calls for a client that has gone
            log["error"] = "client_closed_request"
            raise
        finally:
            self._note(scope, number, status, time.monotonic() - start, log)

    async def _checked(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        try:
            self._check(scope, headers)
        except Refusal as refusal:
            scope["kontext.log"]["error"] = refusal.code
            await refusal.response()(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        options = self._service.options
        host = headers.get("host", "").lower()
        if not known_host(host, options):
            raise Refusal(
                "this server is not known by that name; start it with --allow-host NAME if it should be", status=421
            )
        origin = headers.get("origin")
        own = (f"http://{host}", f"https://{host}")
        if origin is not None and origin not in options.origins and origin.lower() not in own:
            raise Refusal(
                "pages of other origins may not call this server; start it with --allow-origin ORIGIN if they should",
                status=403,
            )
        path, asked_beforehand = scope["path"], scope["method"] == "OPTIONS"  # by browsers, without the key
        if path in OPEN_ROUTES or is_playground(path) or asked_beforehand:
            return
        keys = self._review_keys if scope["path"].startswith(REVIEWED) else self._keys
        if keys and not _has_key(headers, keys):
            raise Refusal(
                "a key is needed: Authorization: Bearer KEY, or x-key: KEY",
                status=401,
                headers={"www-authenticate": "Bearer"},
            )

    def _note(self, scope: Scope, number: str, status: int, seconds: float, log: Mapping[str, Any]) -> None:
        metrics = self._service.metrics
        route = getattr(scope.get("route"), "path", "other")
        metrics.requests.labels(route, str(status)).inc()
        metrics.seconds.labels(route).observe(seconds)
        if "waited" in log:
            metrics.waited.observe(log["waited"])
        if log.get("error") in ("client_closed_request", "deadline_exceeded"):
            metrics.cancelled.labels(log["error"]).inc()
        if scope["path"] in OPEN_ROUTES:
            return
        client = scope.get("client")
        access_log.info(
            "%s %s %d",
            scope["method"],
            route,
            status,
            extra={
                "fields": {
                    "request": number,
                    "client": client[0] if client else None,
                    "method": scope["method"],
                    "route": route,
                    "status": status,
                    "seconds": round(seconds, 4),
                    **log,
                }
            },
        )


def _has_key(headers: Headers, keys: Sequence[bytes]) -> bool:
    """Return whether a known key was shown. What is compared has one length, and all keys are looked at."""
    kind, _, key = headers.get("authorization", "").partition(" ")
    shown = _digest(key.strip() if kind.lower() == "bearer" else headers.get("x-key", ""))
    return any([hmac.compare_digest(shown, known) for known in keys])  # noqa: C419 - a generator stops early


def known_host(host: str, options: ServingOptions) -> bool:
    """Return whether a Host header is one of this server's.

    Addresses are: a page that was led here by a name of its own sends that name. So is localhost, and what was allowed.
    """
    try:
        name = urlsplit(f"//{host}")
        hostname, _ = name.hostname or "", name.port
    except ValueError:
        return False
    if hostname == "localhost" or hostname in (known.lower() for known in options.hosts):
        return True
    try:
        ipaddress.ip_address(hostname)
    except ValueError:
        return False
    return True


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()
