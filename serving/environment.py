"""Checks that what serving needs is installed."""

from __future__ import annotations

from collections.abc import Mapping

from ..engine.system.packages import require

SERVE_PACKAGES: Mapping[str, str] = {
    "starlette": "starlette",
    "uvicorn": "uvicorn",
    "python_multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
}
"""The modules of the extra `serve`, and the packages that have them."""


def require_serve() -> None:
    """Raise MissingDependencyError, which names all that is missing, unless bundles can be served."""
    require("serving", SERVE_PACKAGES, "serve")
