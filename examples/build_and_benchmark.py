"""Builds plans and times edits with them: `python examples/build_and_benchmark.py BUNDLE GPU [COMPONENT ...]`.

On a machine without a GPU the plans are for the one that is named, by TensorRT-RTX's compiler, and nothing is timed.
"""

import statistics
import sys

from kontext_trt import Kontext, build_plans
from kontext_trt.engine.system.gpus import find_gpus

PICTURE, PROMPT = "docs/small-kontext/before.png", "turn the orange hexagon black"
REQUESTS = 5


def time_edits(bundle: str) -> None:
    """Edit one picture several times, and print the median; the first request, which loads everything, is left out."""
    with Kontext.open(bundle) as kontext:
        kontext.edit(PICTURE, PROMPT, seed=0)
        results = [kontext.edit(PICTURE, PROMPT, seed=seed) for seed in range(1, REQUESTS + 1)]
    total = statistics.median(result.milliseconds["total"] for result in results)
    step = statistics.median(ms for result in results for ms in result.step_milliseconds)
    print(f"{results[0].executor}: {total:,.0f} ms per edit, {step:,.1f} ms per step (medians of {REQUESTS} edits)")


def main(bundle: str = "demo/bundle", gpu: str = "rtx 5090", *components: str) -> None:
    """Build for the GPU that is here, or else for the one that is named, and time what can be timed."""
    here, _ = find_gpus()
    target = "current" if here else gpu
    print(f"building for {here[0].name if here else gpu}")
    for plan in build_plans(bundle, gpus=[target], components=components or None):
        record = plan.manifest
        built = "was there" if plan.reused else f"built in {record.build.seconds:.0f} s"
        what = f"{record.ingredients.component} for {record.ingredients.target}"
        print(f"{what}: {record.size_bytes / 2**20:.1f} MiB, {built}")
    if here:
        time_edits(bundle)
    else:
        print("There is no GPU on this machine: the plans were compiled and not run, and nothing was timed.")


if __name__ == "__main__":
    main(*sys.argv[1:])
