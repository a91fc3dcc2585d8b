"""Measures a request at each size that a model was trained at, from a reference of the same size.

    python -m kontext_trt.benchmarks.bench.sizes_table BUNDLE [--executor cuda] [--devices 1] [--steps 28] [--repeat 3]
        [--json]

A size that fails is a row, too, with its reason, and the program then ends with 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ...engine.errors import KontextError
from ...engine.sizes import Size, token_grid
from ...runtime.executors.options import ExecutorName
from ...runtime.inputs.request import Request, Sampling
from ...runtime.kontext import Kontext
from ..program import positive, print_rows, run_main
from .bench import made_picture
from .devices_child import RECORDING
from .engine_process import spreads, timed

SHOWN = {"encode": "encode_ms", "step": "step_ms", "decode": "decode_ms", "total": "request_ms"}
"""The columns of the table by the stages of a request."""


def measure(kontext: Kontext, steps: int, repeat: int) -> list[dict[str, object]]:
    """Return a row for each trained size: its name, its tokens, and medians of milliseconds, or why it failed."""
    return [_row(kontext, size, steps, repeat) for size in kontext.sizes]


def _row(kontext: Kontext, size: Size, steps: int, repeat: int) -> dict[str, object]:
    sampling = Sampling(size=size, steps=steps, seed=0)
    request = Request(prompt="make it blue", image=made_picture(size), sampling=sampling)
    rows, columns = token_grid(size)
    about: dict[str, object] = {"size": f"{size[0]}x{size[1]}", "tokens": rows * columns}
    try:
        found = [timed(kontext, request) for _ in range(RECORDING + repeat)]
    except KontextError as error:
        return {**about, "failed": str(error)}
    medians = spreads(found[RECORDING:])
    return about | {column: round(medians[stage].p50, 1) for stage, column in SHOWN.items()}


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print the table. `given` are arguments in place of the process's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--executor", choices=[one.value for one in ExecutorName], default="cuda")
    parser.add_argument("--devices", type=positive, default=1, help="GPUs that share each request")
    parser.add_argument("--steps", type=positive, default=28)
    parser.add_argument("--repeat", type=positive, default=3, help="timed requests")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    arguments = parser.parse_args(given)
    devices = arguments.devices if arguments.devices > 1 else None
    with Kontext.open(arguments.bundle, executor=arguments.executor, devices=devices) as kontext:
        kontext.load()
        table = measure(kontext, arguments.steps, arguments.repeat)
    print_rows({"steps": arguments.steps, "repeat": arguments.repeat}, table, as_json=arguments.json)
    if any("failed" in row for row in table):
        sys.exit(1)


if __name__ == "__main__":
    run_main(main)
