"""Runs the application with uvicorn, and stops it gracefully."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import sys
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from .work import ENDING_SECONDS

GRACE_SECONDS = 600
"""The seconds that running requests have to end once the server is told to stop."""


class Server(uvicorn.Server):
    """Serves an application, and on SIGTERM or an interrupt sends away who waits before it waits for who runs."""

    def __init__(self, config: uvicorn.Config, app: Starlette) -> None:
        super().__init__(config)
        self._served = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        drain = self._served.state.service.drain
        try:
            asyncio.get_running_loop().call_soon_threadsafe(drain)  # the loop may be in the middle of anything
        except RuntimeError:
            drain()  # it has not begun
        super().handle_exit(sig, frame)


def serve(app: Starlette, *, host: str, port: int, grace_seconds: float = GRACE_SECONDS) -> None:
    """Serve until the process is told to stop.

    Args:
        app: What `create_app` returned.
        host: The address to listen on.
        port: The port; 0 for any that is free.
        grace_seconds: The seconds that running requests have to end.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(grace_seconds + ENDING_SECONDS) + 1,  # what is cancelled is answered, too
        timeout_keep_alive=30,
        ws="none",
        proxy_headers=True,  # of a proxy on this machine: whose request it is, and that it came by TLS
    )
    Server(config, app).run()


class JsonLines(logging.Formatter):
    """Writes records as one JSON object per line, with the fields that a record brings."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def log_lines(*, prompts: bool) -> None:
    """Log in JSON lines on standard error; what logs parts of prompts is silent unless they are wanted."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    for logged in ("kontext_trt.serving", "uvicorn"):
        logging.getLogger(logged).setLevel(logging.INFO)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # each form that cannot be read is answered
    if not prompts:
        logging.getLogger("kontext_trt.runtime.inputs.prompts").setLevel(logging.WARNING)
