"""A judge on this machine: it answers as OpenAI's chat completions do, or goes wrong as it is told."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

MARKS = {"semantic_consistency": 7, "perceptual_quality": 8.5, "reason": "it is as asked"}
PATH = "/v1/chat/completions"


@dataclass(slots=True)
class Asked:
    """What came with one question."""

    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def text(self) -> str:
        return self.body["messages"][0]["content"][0]["text"]

    @property
    def pictures(self) -> list[Image.Image]:
        urls = [part["image_url"]["url"] for part in self.body["messages"][0]["content"][1:]]
        return [Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,")))) for url in urls]


@dataclass(slots=True)
class Reply:
    """An answer: of `content` a completion is made, `body` is sent as it is."""

    content: str | None = None
    status: int = 200
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0

    def bytes(self) -> bytes:
        if self.body is not None:
            return self.body
        content = json.dumps(MARKS) if self.content is None else self.content
        return json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}).encode()


@dataclass(slots=True)
class JudgeServer:
    """Replies come from `replies` in order, and are then good ones; or from `reply`, which is asked about each."""

    url: str
    replies: list[Reply] = field(default_factory=list)
    reply: Callable[[Asked], Reply] | None = None
    asked: list[Asked] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, asked: Asked) -> Reply:
        with self.lock:
            self.asked.append(asked)
            if self.reply is not None:
                return self.reply(asked)
            return self.replies.pop(0) if self.replies else Reply()


@contextmanager
def judging() -> Iterator[JudgeServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != PATH:
                reply = Reply(status=404, body=b"no such path")
            else:
                reply = server.answer(Asked(headers=dict(self.headers), body=body))
            time.sleep(reply.wait)
            data = reply.bytes()
            try:
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(data)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
            except OSError:  # who asked has gone
                self.close_connection = True

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        server = JudgeServer(url=f"http://127.0.0.1:{http.server_address[1]}/v1")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
