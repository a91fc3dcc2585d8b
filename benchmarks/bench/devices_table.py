"""Measures a request on several devices that share it, and the pictures per minute of as many that do not.

    python -m kontext_trt.benchmarks.bench.devices_table BUNDLE [BUNDLE ...] --out FOLDER [--devices 1,2,4]
        [--executor cuda] [--steps 28] [--repeat 3] [--replicas] [--silent] [--predict 4,8] [--json]

Each row is a process of its own on a bundle: how long a request takes, and how far its latents and picture are from
those of one device. `--replicas` runs as many processes as there are devices at once, each on one of its own.
`--silent` leaves the exchange around attention out of what is recorded, which tells what it costs. `--predict` runs the
part that one of more devices would compute, alone on one, and with `--silent` adds the exchange by the bytes sent.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from ...engine.bundle.bundle import Bundle
from ...engine.errors import BenchmarkError, RequestError
from ...runtime.executors.options import ExecutorName
from ...runtime.executors.sharing import check_sharing
from ...runtime.inputs.pictures import read_picture
from ..program import positive, print_rows, run_main
from ..quality.metrics import psnr_db, sqnr_db
from .bench import make_case
from .child import child_process
from .devices_child import READY, DevicesJob, DevicesRun
from .engine_process import precision_of
from .options import BenchOptions
from .records import Case
from .scaling import exchange_on, predicted_ms

_CHILD = "kontext_trt.benchmarks.bench.devices_child"
_LEAVING_S = 60
"""The seconds that a process has to end by itself when it has told what it found."""
REFERENCE = "reference.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Says what is measured: bundles, numbers of devices, and how."""

    bundles: tuple[Path, ...]
    out: Path
    devices: tuple[int, ...]
    executor: ExecutorName
    steps: int
    repeat: int
    replicas: bool = False
    silent: bool = False
    predict: tuple[int, ...] = ()


@dataclass(slots=True)
class Rows:
    """Collects rows of the table, and tells each on standard error when it is added."""

    rows: list[dict[str, object]] = field(default_factory=list)

    def add(self, **values: object) -> None:
        self.rows.append(values)
        print("  ".join(f"{name} {value}" for name, value in values.items()), file=sys.stderr, flush=True)


def measure(table: Table) -> list[dict[str, object]]:
    """Measure a table; each row is told on standard error when it is there.

    Raises:
        OptionError, BundleError: A bundle cannot be shared by so many devices.
        BenchmarkError: A process failed.
    """
    opened = [Bundle.open(path) for path in table.bundles]
    for bundle in opened:
        for number in (*table.devices, *table.predict):
            if number > 1:
                check_sharing(bundle, number)
    table.out.mkdir(parents=True, exist_ok=True)
    rows = Rows()
    for bundle in opened:
        _measure_bundle(table, bundle, rows)
    return rows.rows


def _measure_bundle(table: Table, bundle: Bundle, rows: Rows) -> None:
    case, picture = make_case(bundle, BenchOptions(bundle=bundle.path, out=table.out, steps=table.steps))
    image = table.out / REFERENCE
    assert picture is not None
    picture.save(image)
    name = precision_of(bundle)
    one: tuple[DevicesRun, Path] | None = None
    exchange: tuple[float, int] | None = None
    for number in table.devices:
        latents = table.out / f"{bundle.path.name}-{number}.npy"
        (run,) = _run(table, bundle, case, image, [tuple(range(number))], latents)
        one = one or (run, latents)
        rows.add(bundle=name, devices=number, **_figures(run, *one, latents))
        if table.replicas and number > 1:
            runs = _run(table, bundle, case, image, [(device,) for device in range(number)], latents.with_suffix(".r"))
            rate = sum(60 * table.repeat / other.seconds for other in runs)
            rows.add(bundle=name, replicas=number, pictures_per_minute=round(rate, 1), request_s=_mean_request(runs))
        if table.silent and number > 1:
            (silent,) = _run(table, bundle, case, image, [tuple(range(number))], latents.with_suffix(".s"), silent=True)
            rows.add(bundle=name, without_exchange=number, **_exchange(run, silent))
            exchange = run.warm["step"].p50 - silent.warm["step"].p50, number
    for number in table.predict:
        latents = table.out / f"{bundle.path.name}-part.npy"
        (run,) = _run(table, bundle, case, image, [(0,)], latents, part_of=number)
        part = {stage: run.warm[stage].p50 for stage in ("step", "total")}
        rows.add(bundle=name, part_of=number, step_ms=round(part["step"], 2), request_s=round(part["total"] / 1e3, 3))
        if exchange is not None:
            found = predicted_ms(part, exchange_on(number, *exchange), case.steps)
            step, request = round(found["step"], 1), round(found["total"] / 1e3, 2)
            rows.add(bundle=name, predicted=number, step_ms=step, request_s=request)


def _figures(run: DevicesRun, one: DevicesRun, one_latents: Path, latents: Path) -> dict[str, object]:
    total, first = run.warm["total"].p50, one.warm["total"].p50
    stages = {f"{name}_ms": round(run.warm[name].p50, 1) for name in ("text", "encode", "condition", "decode")}
    figures: dict[str, object] = {
        "request_s": round(total / 1e3, 3),
        "times_one": round(first / total, 2),
        "step_ms": round(run.warm["step"].p50, 2),
        **stages,
        "pictures_per_minute": round(60 * run.warm["total"].count / run.seconds, 1),
        "loaded_s": round(run.loaded_s, 1),
        "first_s": round(run.first_s, 1),
    }
    if latents != one_latents:
        pictures = [np.asarray(read_picture(path.with_suffix(".png"))) for path in (one_latents, latents)]
        figures["latents_db"] = round(sqnr_db(np.load(one_latents), np.load(latents)), 1)
        figures["picture_db"] = round(psnr_db(*pictures), 1)
    return figures


def _exchange(run: DevicesRun, silent: DevicesRun) -> dict[str, object]:
    step, quiet = run.warm["step"].p50, silent.warm["step"].p50
    return {
        "step_ms": round(quiet, 2),
        "exchange_ms": round(step - quiet, 2),
        "exchange_share": f"{(step - quiet) / step:.1%}",
    }


def _mean_request(runs: Sequence[DevicesRun]) -> float:
    return round(sum(run.warm["total"].p50 for run in runs) / len(runs) / 1e3, 3)


def _run(
    table: Table,
    bundle: Bundle,
    case: Case,
    image: Path,
    groups: Sequence[tuple[int, ...]],
    latents: Path,
    *,
    silent: bool = False,
    part_of: int = 0,
) -> list[DevicesRun]:
    """Run processes at once, one for each group of devices, and return what they found."""
    with contextlib.ExitStack() as stack:
        children: list[subprocess.Popen[str]] = []
        for index, devices in enumerate(groups):
            job = DevicesJob(
                bundle=bundle.path.absolute(),
                executor=table.executor,
                devices=devices,
                case=case,
                image=image.absolute(),
                repeat=table.repeat,
                silent=silent,
                part_of=part_of,
                latents=latents.with_suffix(f"{latents.suffix.removesuffix('.npy')}{index or ''}.npy").absolute(),
            )
            children.append(stack.enter_context(_started(job)))
        for child in children:
            _expect(child, READY)
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        return [msgspec.json.decode(_expect(child, "{"), type=DevicesRun) for child in children]


@contextlib.contextmanager
def _started(job: DevicesJob) -> Iterator[subprocess.Popen[str]]:
    words, pipe = msgspec.json.encode(job, enc_hook=str).decode(), subprocess.PIPE
    with child_process("-m", _CHILD, words, stdin=pipe, stdout=pipe, text=True) as child:
        yield child
        with contextlib.suppress(subprocess.TimeoutExpired):  # then it is killed
            child.wait(_LEAVING_S)


def _expect(child: subprocess.Popen[str], beginning: str) -> str:
    """Return the next line of a child that begins so; other libraries may print others before it."""
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith(beginning):
            return line
    raise BenchmarkError(f"a measured process ended with {child.wait()}; its words are above")


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers, such as 1,2,4")
    return tuple(map(int, parts))


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print the table. `given` are arguments in place of the process's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE", help="of fused operators")
    parser.add_argument("--out", type=Path, required=True, help="the folder for latents and pictures")
    parser.add_argument("--devices", type=_numbers, default=(1, 2), help="numbers of devices, the first alone")
    parser.add_argument("--executor", choices=[ExecutorName.CPU.value, ExecutorName.CUDA.value], default="cuda")
    parser.add_argument("--steps", type=positive, default=28)
    parser.add_argument("--repeat", type=positive, default=3, help="timed requests")
    parser.add_argument("--replicas", action="store_true", help="also as many processes of one device each")
    parser.add_argument("--silent", action="store_true", help="also without the exchange around attention")
    parser.add_argument("--predict", type=_numbers, default=(), help="numbers of devices of which one's part is run")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    arguments = parser.parse_args(given)
    if arguments.devices[0] != 1:
        raise RequestError("the first number of devices is 1: the others are compared with it")
    if arguments.silent and arguments.executor == ExecutorName.CPU.value:
        raise RequestError("--silent leaves out what is recorded, and nothing is recorded on the CPU")
    if 1 in arguments.predict:
        raise RequestError("--predict counts from 2: what one device computes is measured anyway")
    table = Table(
        bundles=tuple(arguments.bundles),
        out=arguments.out,
        devices=arguments.devices,
        executor=ExecutorName(arguments.executor),
        steps=arguments.steps,
        repeat=arguments.repeat,
        replicas=arguments.replicas,
        silent=arguments.silent,
        predict=arguments.predict,
    )
    start = time.perf_counter()
    rows = measure(table)
    about = {"steps": table.steps, "repeat": table.repeat, "seconds": round(time.perf_counter() - start)}
    print_rows(about, rows, as_json=arguments.json)


if __name__ == "__main__":
    run_main(main)
