"""Opens hostile bundles and does everything with each that commands do, in a process that may die of it.

    python -m hostile_child BASE WORKPLACE FORBIDDEN FIRST COUNT

It writes a line when a case begins, and one with what came of it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from hostile_cases import KINDS, Case
from simulated_tensorrt import MACHINE
from watched import watched

from kontext_trt.cli.inspect import show_bundle
from kontext_trt.cli.plans import show_plans
from kontext_trt.cli.terminal import screen
from kontext_trt.engine.bundle.bundle import BUILT, NETWORKS, Bundle
from kontext_trt.engine.bundle.share import files_below
from kontext_trt.engine.bundle.shared_file import SharedFile
from kontext_trt.engine.documents import read_json
from kontext_trt.engine.errors import BundleError, KontextError
from kontext_trt.engine.plans.choice import choose_plans
from kontext_trt.engine.plans.prune import prune_store
from kontext_trt.engine.plans.store import PlanStore
from kontext_trt.export.configs import ModelConfig
from kontext_trt.runtime.executors.onnxruntime_cpu import OnnxRuntimeCpu
from kontext_trt.runtime.inputs.prompts import PromptTokenizer

MAX_BYTES = 512 << 20
LIBC = ctypes.CDLL(None)


def uses(bundle: Bundle, components: set[str]) -> Iterator[Callable[[], object]]:
    """What commands do with an opened bundle."""
    store = PlanStore.of(bundle.path)
    yield lambda: bundle.verify(whole=True)
    for name in bundle.manifest.tokenizers:
        yield lambda name=name: PromptTokenizer(*bundle.tokenizer(name))("make the cat blue, please")
    yield lambda: read_json(bundle.file(NETWORKS).read_bytes(), ModelConfig, BundleError)
    for component in sorted(components):
        yield lambda component=component: OnnxRuntimeCpu(bundle, threads=1).load(component)
    yield lambda: _shown(bundle, store)
    yield lambda: [list(store.problems(entry)) for entry in store.entries()]
    yield lambda: choose_plans(store, bundle, MACHINE, ["clip"])
    yield lambda: prune_store(store, bundle, everything=True, dry_run=True)
    yield lambda: prune_store(store, bundle, everything=True)
    yield lambda: _with(store.lock("0" * 32))
    yield lambda: SharedFile(bundle=bundle.path, place="caches/timing/some.cache").update(lambda data: data + b"1")
    yield lambda: (bundle.own_folder("reports") / "report").write_bytes(b"1")
    yield lambda: list(files_below(bundle.path, BUILT))


def _shown(bundle: Bundle, store: PlanStore) -> None:
    """Print what `inspect` and `plans list` print, and look that nothing in it controls a terminal."""
    with screen.capture() as capture:
        show_bundle(bundle)
        show_plans(list(store.entries()))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", capture.get()), "a control character was printed"


def _with(held) -> None:
    with held:
        pass


def attempt(use: Callable[[], object]) -> str:
    """What came of it: "" or a refusal; what is not refused in our words is raised."""
    try:
        use()
    except KontextError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def kept(bundle: Path) -> dict[str, tuple[int, int, int]]:
    """What nobody may change by using a bundle."""
    return {
        place: (status.st_ino, status.st_size, status.st_mtime_ns)
        for folder, _, names in os.walk(bundle)
        for place in (os.path.relpath(os.path.join(folder, name), bundle) for name in names)
        if place.split("/")[0] not in (*BUILT, "reports")
        for status in (os.lstat(bundle / place),)
    }


def open_files() -> set[str]:
    """Where this process's descriptors point to."""
    found: set[str] = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the listing's own
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return found


def run_case(base: Path, workplace: Path, forbidden: Path, seed: int) -> dict[str, object]:
    dice, bundle = random.Random(seed), workplace / f"case-{seed}"
    shutil.copytree(base, bundle, copy_function=os.link, ignore=shutil.ignore_patterns("plans"))
    shutil.copytree(base / "plans", bundle / "plans")
    make = KINDS[seed % len(KINDS)]
    case = Case(bundle=bundle, dice=dice, forbidden=forbidden)
    make(case)
    if not case.changed:
        case.component()
    before, descriptors = kept(bundle), open_files()
    gc.collect()
    LIBC.malloc_trim(0)  # what making the case took, is not what using it takes
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    start, refusals = time.perf_counter(), []
    with watched(forbidden, forbidden / "folder") as watch:
        opened: list[Bundle] = []
        refusals.append(attempt(lambda: opened.append(Bundle.open(bundle))))
        for one in opened:
            refusals += [attempt(use) for use in uses(one, case.changed)]
        touched = watch.seen()
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))
    gc.collect()  # an error's frames may hold what it was raised over
    problems = [f"touched {what}" for what in touched]
    problems += [f"{peak:,} bytes"] if peak > MAX_BYTES else []
    problems += ["the bundle was changed"] if kept(bundle) != before else []
    problems += [f"descriptors stay open: {sorted(open_files() - descriptors)}"] if open_files() - descriptors else []
    shutil.rmtree(bundle)
    said = [refusal for refusal in refusals if refusal]
    return {
        "kind": make.__name__, "opened": bool(opened), "refusals": said, "problems": problems, "seconds": seconds,
        "peak_bytes": peak,
    }  # fmt: skip


def main() -> None:
    base, workplace, forbidden = map(Path, sys.argv[1:4])
    first, count = map(int, sys.argv[4:])
    warm = Bundle.open(shutil.copytree(base, workplace / "warm"))
    list(map(attempt, uses(warm, {"clip"})))  # libraries open files of their own when first used
    shutil.rmtree(warm.path)
    for seed in range(first, first + count):
        print(json.dumps({"begins": seed}), flush=True)
        print(json.dumps({"seed": seed, **run_case(base, workplace, forbidden, seed)}), flush=True)


if __name__ == "__main__":
    main()
