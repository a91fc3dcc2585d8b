"""Shows a person the pictures that wait for a decision, and takes the decisions."""

from __future__ import annotations

import time
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .desk import Desk
from .refusals import json_response

PAGE = Path(__file__).with_name("review.html")
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob:; connect-src 'self'; "
    "frame-ancestors 'none'; form-action 'none'; base-uri 'none'"
)


class Reviewing:
    """Answers the routes of the review: a page, and what it asks for.

    Args:
        desk: Where pictures wait.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/review", self.page, methods=["GET"]),
            Route("/review/pictures", self.listed, methods=["GET"]),
            Route("/review/pictures/{name}", self.picture, methods=["GET"]),
            Route("/review/pictures/{name}/approve", self.approve, methods=["POST"]),
            Route("/review/pictures/{name}/refuse", self.refuse, methods=["POST"]),
        ]

    async def page(self, request: Request) -> Response:
        """Return the page, which holds no picture, so it needs no key."""
        headers = {"content-security-policy": _POLICY, "cache-control": "no-store"}
        return Response(PAGE.read_bytes(), media_type="text/html; charset=utf-8", headers=headers)

    async def listed(self, request: Request) -> Response:
        """List what waits."""
        now = time.time()
        cases = [
            {
                "id": case.name,
                "prompt": case.prompt,
                "width": case.width,
                "height": case.height,
                "waits_seconds": round(max(now - case.since, 0), 1),
            }
            for case in await self._desk.cases()
        ]
        return json_response({"data": cases}, headers={"cache-control": "no-store"})

    async def picture(self, request: Request) -> Response:
        """Return a picture that waits, as PNG."""
        data = await self._desk.picture(request.path_params["name"])
        return Response(data, media_type="image/png", headers={"cache-control": "no-store"})

    async def approve(self, request: Request) -> Response:
        """Let a picture be handed out."""
        await self._desk.decide(request.path_params["name"], approved=True)
        return json_response({"approved": True})

    async def refuse(self, request: Request) -> Response:
        """Refuse a picture."""
        await self._desk.decide(request.path_params["name"], approved=False)
        return json_response({"approved": False})
