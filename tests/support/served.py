"""Servers for tests: an application behind uvicorn in a thread, a process of its own, and runners that can be held."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from command_line import LINKS

from kontext_trt import Kontext, Request, Result
from kontext_trt.serving.app import create_app
from kontext_trt.serving.options import ServingOptions


class Held:
    """A runner that stops before each step until it is let go, and counts what it is asked."""

    def __init__(self, kontext: Kontext) -> None:
        self._kontext = kontext
        self.bundle = kontext.bundle
        self.go_on = threading.Event()
        self.running = threading.Event()
        self.asked: list[Request] = []
        self.done: list[str] = []

    def run(self, request: Request, *, on_step: Any = None, cancel: Any = None, **watch: Any) -> Result:
        self.asked.append(request)
        self.running.set()

        def step(done: int, of: int) -> None:
            if on_step is not None:
                on_step(done, of)
            while not self.go_on.wait(0.01):
                if cancel is not None and cancel.is_set():
                    return

        try:
            result = self._kontext.run(request, on_step=step, cancel=cancel, **watch)
        except Exception as error:
            self.done.append(type(error).__name__)
            raise
        self.done.append("made")
        return result


@contextmanager
def served(runner: Any, options: ServingOptions | None = None) -> Iterator[str]:
    """The address of an application that serves a runner, in a thread of this process."""
    app = create_app(runner, options)
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, ws="none", proxy_headers=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


class Process:
    """A server in a process of its own.

    Attributes:
        url: Its address.
        lines: What it wrote to standard error.
    """

    def __init__(self, bundle: Path, *options: str) -> None:
        command = [sys.executable, "-m", "kontext_trt", "serve", str(bundle), "--port", "0", *options]
        environment = {**os.environ, "PYTHONPATH": LINKS}
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.lines: list[str] = []
        self.url = ""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.append(line)
            if match := re.search(r"running on (http://[\d.]+:\d+)", line):
                self.url = match[1]
                break
        else:
            raise AssertionError("".join(self.lines))
        self._reading = threading.Thread(target=self._read)
        self._reading.start()
        self.pid = self._process.pid

    def _read(self) -> None:
        assert self._process.stderr is not None
        self.lines.extend(self._process.stderr)

    def resident_bytes(self) -> int:
        words = Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(words[1]) * 4096

    def terminate(self) -> None:
        self._process.terminate()

    def wait(self, seconds: float = 60) -> int:
        code = self._process.wait(seconds)
        self._reading.join(10)
        return code

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()


def error_of(response: httpx2.Response) -> dict[str, Any]:
    """The error of an answer in OpenAI's form, which it is held to."""
    body = response.json()
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    assert isinstance(error["code"], str)
    assert error["param"] is None or isinstance(error["param"], str)
    return error
