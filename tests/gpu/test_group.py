"""Ranks that share tokens compute what one GPU computes of all, eager and replayed from a graph.

`python tests/gpu/test_group.py [RANKS]` prints the table, without ONNX Runtime. Each rank is a process of its own,
which computes both; all are killed when one fails, or when time is up.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2] / folder) for folder in (".links", "tests/support")]

import pytest
from shared_operators import Rank, is_right, joined, words

from kontext_trt.engine.system.gpus import find_gpus
from kontext_trt.runtime.device.cuda import CudaPython
from kontext_trt.runtime.device.group import NcclGroup, unique_id

pytestmark = pytest.mark.gpu
SECONDS = 150
"""How long all of it may take before it is killed."""


def _meeting(rank: int, folder: Path) -> bytes:
    """What ranks find each other by, which the first leaves to the others."""
    place = folder / "id"
    if rank == 0:
        (folder / "new").write_bytes(unique_id())
        (folder / "new").rename(place)
    while not place.exists():
        time.sleep(0.02)
    return place.read_bytes()


def main(rank: int, ranks: int, folder: Path) -> None:
    """Compute every case as one rank, and write a line for each."""
    code = 1
    try:
        cuda = CudaPython(rank)
        stream = cuda.stream()
        one = Rank(cuda, stream, NcclGroup(cuda, stream, _meeting(rank, folder), rank, ranks))
        with (folder / f"rows-{rank}").open("w") as rows:
            for case in one.cases():
                print(f"rank {rank}: {case}", file=sys.stderr, flush=True)  # the last one says where it stopped
                print(json.dumps(one.run(case)), file=rows, flush=True)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)  # nothing may wait for the others


def run(ranks: int) -> list[dict[str, Any]]:
    """Start the ranks, and return their rows, each with the largest error of all; or raise what one of them said."""
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root / ".links"), os.environ.get("PYTHONPATH", "")])}
    with tempfile.TemporaryDirectory() as name:
        folder, end = Path(name), time.monotonic() + SECONDS
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(ranks):
                command = [sys.executable, __file__, "rank", str(rank), str(ranks), name]
                with (folder / f"log-{rank}").open("w") as log:
                    processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            while any(one.poll() is None for one in processes) and time.monotonic() < end:
                if any(one.poll() for one in processes):
                    time.sleep(1)  # for what another has to say
                    break
                time.sleep(0.1)
        finally:
            for one in processes:
                one.kill()
                one.wait()
        codes = [one.returncode for one in processes]
        if any(codes):
            words = "\n".join(f"rank {rank}:\n{(folder / f'log-{rank}').read_text()[-3000:]}" for rank in range(ranks))
            rows = (folder / "rows-0").read_text() if (folder / "rows-0").exists() else ""
            raise RuntimeError(f"ranks ended with {codes}; what was done:\n{rows}\n{words}")
        files = [(folder / f"rows-{rank}").read_text() for rank in range(ranks)]
    rows = [[json.loads(line) for line in file.splitlines()] for file in files]
    return [joined(of) for of in zip(*rows, strict=True)]


def test_ranks_compute_what_one_gpu_computes() -> None:
    gpus, reason = find_gpus()
    if len(gpus) < 2:
        pytest.skip(f"needs two GPUs: {reason or f'there is {len(gpus)}'}")
    if importlib.util.find_spec("nccl") is None:
        pytest.skip("nccl4py is not installed")
    rows = run(2)
    assert len(rows) > 30
    assert [words(row) for row in rows if not is_right(row)] == []


if __name__ == "__main__":
    if sys.argv[1:2] == ["rank"]:
        main(int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    began = time.monotonic()
    table = run(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    print("\n".join(map(words, table)), f"\n{len(table)} cases in {time.monotonic() - began:.0f} s")
    sys.exit(not all(map(is_right, table)))
