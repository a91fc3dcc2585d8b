"""Replicas for tests: the command that serves them, in a process of its own, and the processes below it."""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import httpx2
from command_line import LINKS

PORTS = range(20_000, 30_000)
"""Ports that nobody is given who asks for any: Ray does, before it listens on the one that it was told."""


def free_port() -> int:
    """Return a port of `PORTS` that nobody listens on."""
    for port in random.sample(PORTS, 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


class Cluster:
    """The command in a process of its own, with the Ray that it starts.

    Attributes:
        url: Its address.
        lines: What it wrote to standard error.
    """

    def __init__(self, bundle: Path, folder: Path, *options: str) -> None:
        port = free_port()
        self.temporary = tempfile.mkdtemp(prefix="kontext-ray-", dir="/tmp")  # a socket's path is short
        environment = {**os.environ, "PYTHONPATH": LINKS, "RAY_TMPDIR": self.temporary, "COLUMNS": "200"}
        command = [sys.executable, "-m", "kontext_trt", "serve", str(bundle), "--ray", "--gpus", "0"]
        command += ["--replicas", "2", "--port", str(port), "--state", str(folder / "state"), *options]
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        self.url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 300
        while f"on {self.url}" not in self.log():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.2)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def replicas(self) -> list[int]:
        """The processes of the replicas."""
        return [
            pid for pid in descendants(self.process.pid) if b"ServeReplica:kontext" in proc(pid, "cmdline").read_bytes()
        ]

    def busiest(self) -> int:
        """The replica that computes most in a quarter of a second."""
        before = {pid: ticks(pid) for pid in self.replicas()}
        time.sleep(0.25)
        return max(before, key=lambda pid: ticks(pid) - before[pid])

    def metric(self, name: str, headers: Mapping[str, str] | None = None) -> dict[str, float]:
        """What the replicas count under a name, by replica; each question reaches one of them."""
        found: dict[str, float] = {}
        answered: set[str] = set()
        for _ in range(24):
            text = httpx2.get(f"{self.url}/metrics", headers=headers, timeout=60).text
            for labels, value in re.findall(rf"^{re.escape(name)}{{(.*)}} (\S+)$", text, re.MULTILINE):
                found[labels] = float(value)
            answered.update(re.findall(r'replica="(.*?)"', text))
            if len(answered) == 2:
                break
        return found

    def stop(self) -> int:
        """End it as an operator does, and return its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(120)
        finally:
            self.process.kill()
            shutil.rmtree(self.temporary, ignore_errors=True)


def proc(pid: int, name: str) -> Path:
    return Path(f"/proc/{pid}/{name}")


def ticks(pid: int) -> int:
    fields = proc(pid, "stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(folder.name))
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
