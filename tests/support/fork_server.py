"""Starts Python programs by forking a process that has already imported what they import.

Each is a process of its own, with the arguments, environment, folder and streams that it is given, and ends as Python
ends. What is left out is the second, or with torch the ten, that imports take. Run as a program this is the server.
"""

from __future__ import annotations

import array
import atexit
import gc
import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

RUNNING = (
    "kontext_trt.cli.app kontext_trt.cli.edit kontext_trt.cli.inspect kontext_trt.cli.plans kontext_trt.cli.session "
    "kontext_trt.cli.sign kontext_trt.runtime.executors.onnxruntime_cpu rich.progress rich.table runpy "
    "typer._adapters typer.rich_utils"
)
"""What commands import that make pictures."""
EXPORTING = (
    "kontext_trt.cli.export kontext_trt.export.demo kontext_trt.export.export kontext_trt.export.networks.clip "
    "kontext_trt.export.networks.t5 kontext_trt.export.networks.vae onnxscript.optimizer safetensors.torch "
    "torch._dynamo torch.onnx._internal.exporter._core diffusers.pipelines.flux.pipeline_flux_kontext"
)
"""What commands import besides that trace or compute with torch."""


class ForkServer:
    """A server for one process, which it ends with.

    `modules` are imported in `environment`, which jobs should not differ from where imports look at it.
    """

    def __init__(self, modules: str, environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno()), *modules.split()]
            one_thread = {**environment, "OMP_NUM_THREADS": "1"}  # libraries start no threads, which no fork has
            self._process = subprocess.Popen(
                command,
                env=one_thread,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self._socket = ours
        atexit.register(self.close)

    def run(
        self,
        code: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folder: Path | None = None,
        lines: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `python -c CODE ARGUMENTS` and give it `lines` to read."""
        job = {
            "code": code,
            "arguments": list(arguments),
            "environment": dict(environment),
            "folder": str(folder or ""),
        }
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
            given.write((lines or "").encode())
            given.seek(0)
            socket.send_fds(self._socket, [b"f"], [given.fileno(), out.fileno(), errors.fileno()])
            send(self._socket, job)
            status = receive(self._socket)
            assert status is not None, "the server of forked processes is gone"
            said = [_text(file) for file in (out, errors)]
        return subprocess.CompletedProcess([code, *arguments], os.waitstatus_to_exitcode(status), *said)

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode().replace("\r\n", "\n")


def send(to: socket.socket, message: Any) -> None:
    data = json.dumps(message).encode()
    to.sendall(len(data).to_bytes(8, "little") + data)


def receive(source: socket.socket) -> Any:
    """The next message, or None where there is no other."""
    head = _exactly(source, 8)
    return json.loads(_exactly(source, int.from_bytes(head, "little"))) if head else None


def _exactly(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = source.recv(size - len(data))
        if not more:
            return b""
        data += more
    return data


def next_job(client: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """What is to be run, and its streams."""
    _, ancillary, _, _ = client.recvmsg(1, socket.CMSG_SPACE(3 * array.array("i").itemsize))
    if not ancillary:
        return None
    streams = array.array("i", ancillary[0][2])
    return receive(client), list(streams)


def serve(client: socket.socket) -> dict[str, Any] | None:
    """Fork for each job, and return it in the child; return None once the client has gone."""
    while True:
        asked = next_job(client)
        if asked is None:
            return None
        job, streams = asked
        child = os.fork()
        if child == 0:
            client.close()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            return job
        for stream in streams:
            os.close(stream)
        send(client, os.waitpid(child, 0)[1])


def become(job: Mapping[str, Any]) -> str:
    """Take a job's arguments, environment and folder, and return its code."""
    os.environ.clear()
    os.environ.update(job["environment"])
    if job["folder"]:
        os.chdir(job["folder"])
    sys.argv = ["-c", *job["arguments"]]
    sys.path[0:1] = ["", *job["environment"].get("PYTHONPATH", "").split(os.pathsep)]
    return job["code"]


def main() -> None:
    client = socket.socket(fileno=int(sys.argv[1]))
    for name in sys.argv[2:]:
        importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "threads do not survive a fork"
    gc.freeze()  # what never dies is not looked through, which would copy its memory
    job = serve(client)
    if job is not None:
        exec(compile(become(job), "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    main()
