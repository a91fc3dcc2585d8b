"""Makes the server of one bundle: an ASGI application on the runtime's face."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..engine.errors import KontextError
from ..runtime.runner import Runner
from .bfl import Bfl
from .guard import Guard
from .images import Images
from .options import ServingOptions
from .playground.files import Playground
from .refusals import Refusal, json_response, refusal_of
from .reviewing import Reviewing
from .service import Service

SECONDS_BETWEEN_SWEEPS = 15.0
"""The seconds between two looks at what was kept long enough."""

logger = logging.getLogger(__name__)


def create_app(kontext: Runner, options: ServingOptions | None = None) -> Starlette:
    """Return an ASGI application that serves pictures of an opened bundle.

    It speaks OpenAI's images API and BFL's protocol, and has a page for people at `/`. Pictures are made one at a time,
    in a thread of the application's.

    Args:
        kontext: The opened bundle, which stays the caller's; it must outlive the application.
        options: How it is set up; the usual where this is None.

    Returns:
        The application. Its `state.service` has `drain`, which lets running requests end and sends waiting ones away.
    """
    service = Service.of(kontext, options or ServingOptions())
    images, bfl, about = Images(service), Bfl(service), _About(service)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        sweeping = asyncio.ensure_future(_sweep(service, bfl))
        try:
            yield
        finally:
            service.drain()
            sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await sweeping
            await bfl.close()
            await asyncio.to_thread(service.worker.close)

    app = Starlette(
        routes=[
            Route("/v1/images/edits", images.edit, methods=["POST"]),
            Route("/v1/images/generations", images.generate, methods=["POST"]),
            Route("/v1/results/{name}", images.result, methods=["GET"]),
            Route("/v1/models", about.models, methods=["GET"]),
            Route("/v1/models/{name}", about.model, methods=["GET"]),
            Route("/v1/loras", about.loras, methods=["GET"]),
            Route("/v1/sessions/{name}", about.end_session, methods=["DELETE"]),
            Route("/v1/flux-kontext-pro", bfl.submit, methods=["POST"]),
            Route("/v1/get_result", bfl.result, methods=["GET"]),
            Route("/healthz", about.health, methods=["GET"]),
            Route("/readyz", about.ready, methods=["GET"]),
            Route("/metrics", about.metrics, methods=["GET"]),
            *(() if service.maker.desk is None else Reviewing(service.maker.desk).routes()),
            *Playground(service).routes(),
        ],
        middleware=[Middleware(Guard, service=service), *_cross_origin(service.options)],
        exception_handlers={HTTPException: _say, KontextError: _say, Exception: _say},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.service = service
    return app


class _About:
    """Answers what is asked about the server itself."""

    def __init__(self, service: Service) -> None:
        self._service, self._created = service, int(time.time())

    async def models(self, request: Request) -> Response:
        return json_response({"object": "list", "data": [self._card()]})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name != self._service.name:
            raise Refusal(
                f"there is no model {name[:80]!r}; this server has {self._service.name!r}",
                status=404,
                code="model_not_found",
                param="model",
            )
        return json_response(self._card())

    def _card(self) -> dict[str, Any]:
        return {"id": self._service.name, "object": "model", "created": self._created, "owned_by": "kontext-trt"}

    async def loras(self, request: Request) -> Response:
        names = await asyncio.to_thread(self._service.loras.names)
        return json_response({"object": "list", "data": [{"id": name, "object": "lora"} for name in names]})

    async def end_session(self, request: Request) -> Response:
        await self._service.kept(self._service.sessions.end, request.path_params["name"])
        return json_response({"deleted": True})

    async def health(self, request: Request) -> Response:
        self._service.health.check()
        return json_response({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        if self._service.turns.draining:
            raise Refusal("this server is stopping", status=503)
        self._service.health.check()
        return json_response({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        return Response(self._service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _cross_origin(options: ServingOptions) -> list[Middleware]:
    """Return what tells browsers that pages of other origins may read answers, if any may."""
    if not options.origins:
        return []
    methods, headers = ["GET", "POST", "DELETE"], ["authorization", "x-key", "content-type"]
    return [Middleware(CORSMiddleware, allow_origins=options.origins, allow_methods=methods, allow_headers=headers)]


async def _say(request: Request, error: Exception) -> Response:
    """Answer with a failure in OpenAI's form, and log those that are this machine's."""
    refusal = refusal_of(error)
    request.scope["kontext.log"]["error"] = refusal.code
    if refusal.status == 500:
        logger.error("a request failed", exc_info=error)
    return refusal.response()


async def _sweep(service: Service, bfl: Bfl) -> None:
    while True:
        await asyncio.sleep(SECONDS_BETWEEN_SWEEPS)
        try:
            await bfl.tell()
            await service.kept(service.expire)
        except OSError:  # a shared folder may come back
            logger.exception("what was kept could not be looked through")
