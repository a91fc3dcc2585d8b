"""Serves the playground: files that a browser reads as they are, and what they need to know of the server."""

from __future__ import annotations

from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..refusals import json_response
from ..service import Service

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""The types of the playground's files, by the end of their names."""
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}
"""The headers that each file is sent with: nothing of other hosts is loaded, and no other page may frame this one."""
INDEX = "index.html"
"""The name of the page's file."""


def is_playground(path: str) -> bool:
    """Return whether a path is one of the playground's, which need no key: the page asks for it."""
    return path == "/" or path.startswith("/playground/")


class Playground:
    """Answers with the playground's files, which are read once.

    Attributes:
        files: The bytes of each file by its name.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self.files = {
            file.name: file.read_bytes()
            for file in resources.files(__name__.rpartition(".")[0]).iterdir()
            if any(file.name.endswith(suffix) for suffix in MEDIA_TYPES)
        }

    def routes(self) -> list[Route]:
        """Return the page's routes: `/`, a file each, and the settings."""
        names = sorted(set(self.files) - {INDEX})
        return [
            Route("/", self._file, methods=["GET"]),
            Route("/playground/settings.json", self.settings, methods=["GET"]),
            *(Route(f"/playground/{name}", self._file, methods=["GET"]) for name in names),
        ]

    async def settings(self, request: Request) -> Response:
        """Return what the page shows before anything is asked: whether a key is needed, and the model's defaults."""
        service = self._service
        manifest = service.runner.bundle.manifest
        flow = manifest.model.flow
        settings = {
            "model": service.name,
            "key_needed": bool(service.options.keys),
            "masks": "masks" in manifest.features,
            "steps": flow.steps,
            "guidance": flow.guidance,
            "sizes": [f"{width}x{height}" for width, height in manifest.model.sizes],
            "session_seconds": service.options.keeping.session_seconds,
        }
        return json_response(settings, headers=HEADERS)

    async def _file(self, request: Request) -> Response:
        name = request.url.path.rpartition("/")[2] or INDEX
        suffix = name[name.rindex(".") :]
        return Response(self.files[name], headers=HEADERS | {"content-type": MEDIA_TYPES[suffix]})
