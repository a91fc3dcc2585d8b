"""Measures what a server costs over the bare call, and what several pictures in one batch would save.

    python -m kontext_trt.benchmarks.costs.serving_cost BUNDLE [--requests N] [--steps N] [--json]

A process serves the bundle as `kontext-trt serve` does, and is asked for the same edit again and again. The overhead is
what a client waits beyond what `Kontext.run` took for that very request, as the server's metrics have it: reading the
body and its fields, the way to the thread and back, PNG, base64, JSON and the connection. Batches are one
request with several seeds, without a server.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...engine.sizes import Size
from ...runtime.inputs.pictures import read_picture
from ...runtime.kontext import Kontext
from ..bench.child import ChildError
from ..program import positive, run_main

PICTURE = Path(__file__).parents[2] / "export/demo.png"
PROMPT = "make it blue"
BATCHES = (1, 2, 4, 8)


@contextmanager
def serving(bundle: Path, *options: str) -> Iterator[int]:
    """Serve a bundle in a process of its own, and return the port. Raises ChildError if it does not begin."""
    command = [sys.executable, "-m", "kontext_trt", "serve", str(bundle), "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said: list[str] = []
            for line in process.stderr:
                said.append(line)
                if match := re.search(r"running on http://127\.0\.0\.1:(\d+)", line):
                    yield int(match[1])
                    return
            raise ChildError(f"the server did not begin: {' '.join(said[-3:])}")
        finally:
            process.terminate()
            process.communicate()


def ask(connection: http.client.HTTPConnection, body: bytes) -> bytes:
    """Ask a server for an edit, and return the picture's bytes. Raises ChildError if it gives none."""
    connection.request("POST", "/v1/images/edits", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    data = answer.read()
    if answer.status != 200:
        raise ChildError(f"the server answered {answer.status}: {data[:300].decode(errors='replace')}")
    return base64.b64decode(json.loads(data)["data"][0]["b64_json"])


def seconds_of_runs(connection: http.client.HTTPConnection) -> float:
    """Return the seconds that all of a server's calls of `Kontext.run` took together."""
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    found = re.search(r'^kontext_stage_seconds_sum\{stage="run"\} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def measure_overhead(bundle: Path, size: Size, requests: int, steps: int) -> dict[str, float]:
    """Return the median milliseconds of a request over HTTP, of the call in it, and of what comes on top."""
    file = io.BytesIO()
    read_picture(PICTURE).resize(size).save(file, format="PNG")
    picture = base64.b64encode(file.getvalue()).decode()
    body = json.dumps({"prompt": PROMPT, "image": picture, "num_inference_steps": steps, "seed": 0}).encode()
    served: list[float] = []
    runs: list[float] = []
    with serving(bundle) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for turn in range(requests + 2):
            before = seconds_of_runs(connection)
            start = time.perf_counter()
            ask(connection, body)
            seconds = time.perf_counter() - start
            if turn >= 2:  # the first ones load and encode
                served.append(1e3 * seconds)
                runs.append(1e3 * (seconds_of_runs(connection) - before))
        connection.close()
    over = [one - run for one, run in zip(served, runs, strict=True)]
    return {
        "served_ms": statistics.median(served),
        "run_ms": statistics.median(runs),
        "overhead_ms": statistics.median(over),
        "overhead_p90_ms": statistics.quantiles(over, n=10)[-1] if len(over) > 1 else over[0],
    }


def measure_batches(kontext: Kontext, repeat: int, steps: int) -> dict[str, float]:
    """Return the median milliseconds per picture of requests for several pictures at once, taken in turn."""
    picture = read_picture(PICTURE)
    seconds: dict[int, list[float]] = {batch: [] for batch in BATCHES}
    for turn in range(repeat + 1):
        for batch in BATCHES:
            start = time.perf_counter()
            kontext.edit(picture, PROMPT, steps=steps, seed=list(range(batch)))
            if turn:
                seconds[batch].append(time.perf_counter() - start)
    return {
        f"batch_of_{batch}_ms_per_picture": 1e3 * statistics.median(found) / batch for batch, found in seconds.items()
    }


def main() -> None:
    """Measure and print what serving costs."""
    parser = argparse.ArgumentParser(description="What a server costs over the bare call, and what batches would save.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--requests", type=positive, default=50)
    parser.add_argument("--steps", type=positive, default=4)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with Kontext.open(arguments.bundle) as kontext:
        rows = measure_overhead(arguments.bundle, kontext.sizes[0], arguments.requests, arguments.steps)
        kontext.load()
        rows |= measure_batches(kontext, max(3, arguments.requests // 10), arguments.steps)
    rows = {name: round(value, 2) for name, value in rows.items()}
    if arguments.json:
        print(json.dumps(rows))
        return
    for name, value in rows.items():
        print(f"{name:28} {value:9.2f}")


if __name__ == "__main__":
    run_main(main)
