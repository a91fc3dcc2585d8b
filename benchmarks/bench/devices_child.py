"""Runs requests on the devices that it is told, in a process of its own, when it is told to.

It prints "ready" when everything is loaded and recorded, waits for a line, runs its requests, and prints what it found.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from ...engine.bundle.bundle import Bundle
from ...engine.errors import BenchmarkError
from ...runtime.executors.options import ExecutorName, OnnxRuntimeOptions
from ...runtime.inputs.pictures import read_picture
from ...runtime.kontext import Kontext
from ..program import run_main
from . import silent_rank
from .engine_process import spreads, timed
from .lone_rank import LoneExecutor
from .records import Case, Spread
from .request import request_of

READY = "ready"
RECORDING = 3
"""The requests before everything is recorded: the first runs, the second may record, the third finds it recorded."""


class DevicesJob(msgspec.Struct, frozen=True, kw_only=True):
    """Says what to run.

    Attributes:
        bundle: The bundle.
        executor: Who runs it, the CPU or CUDA.
        devices: The numbers of the devices that share a request; one runs it alone.
        case: The request.
        image: A picture of the case's reference size.
        repeat: How many requests are timed.
        silent: Leave the exchange around attention out.
        part_of: Run the part of one of so many devices, alone; 0 for all of a request.
        latents: Where the latents go, as NumPy's file; the picture goes beside it.
    """

    bundle: Path
    executor: ExecutorName
    devices: tuple[int, ...]
    case: Case
    image: Path | None
    repeat: int
    silent: bool
    part_of: int
    latents: Path


class DevicesRun(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what was found: seconds until ready, and of the timed requests together, and the ms of their parts."""

    executor: str
    loaded_s: float
    first_s: float
    seconds: float
    warm: dict[str, Spread]


def run(job: DevicesJob) -> DevicesRun:
    """Run a job; between, say that it is ready and wait for a line."""
    image = None if job.image is None else read_picture(job.image)
    request, start = request_of(job.case, image), time.perf_counter()
    with _opened(job) as kontext:
        kontext.load()
        loaded = time.perf_counter()
        kontext.run(request)
        first = time.perf_counter()
        for _ in range(RECORDING - 1):
            kontext.forget()
            kontext.run(request)
        print(READY, flush=True)
        if not sys.stdin.readline():
            raise BenchmarkError("whoever asked is gone")
        begun = time.perf_counter()
        found = [timed(kontext, request) for _ in range(job.repeat)]
        seconds = time.perf_counter() - begun
    output = found[0][0].outputs[0]
    np.save(job.latents, output.latents)
    output.image.save(job.latents.with_suffix(".png"))
    return DevicesRun(
        executor=kontext.executor.name,
        loaded_s=loaded - start,
        first_s=first - loaded,
        seconds=seconds,
        warm=spreads(found),
    )


def _opened(job: DevicesJob) -> Kontext:
    options = job.executor.options()
    assert isinstance(options, OnnxRuntimeOptions)
    if job.part_of:
        (device,) = job.devices
        bundle, devices = Bundle.open(job.bundle), tuple(range(device, device + job.part_of))
        return Kontext(bundle, LoneExecutor(bundle, replace(options, devices=devices)))
    if len(job.devices) == 1:
        return Kontext.open(job.bundle, executor=replace(options, device_id=job.devices[0]))
    if not job.silent:
        return Kontext.open(job.bundle, executor=options, devices=job.devices)
    from ...runtime.executors.group_executor import GroupExecutor

    bundle = Bundle.open(job.bundle)
    shared = replace(options, devices=job.devices)
    return Kontext(bundle, GroupExecutor(bundle, shared, command=silent_rank.command()))


def main() -> None:
    """Run the job that is the only argument, and print what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("job", type=_job, help="a job in JSON")
    print(msgspec.json.encode(run(parser.parse_args().job)).decode(), flush=True)


def _job(text: str) -> DevicesJob:
    try:
        return msgspec.json.decode(text, type=DevicesJob, dec_hook=lambda kind, value: kind(value))
    except msgspec.MsgspecError as error:
        raise argparse.ArgumentTypeError(f"it is no job of devices_table: {error}") from error


if __name__ == "__main__":
    run_main(main)
