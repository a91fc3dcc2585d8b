"""Measures what precision, steps, solver and cached steps cost together, beside the seconds that they are reckoned at.

    python -m kontext_trt.benchmarks.quality.precision_table BUNDLE [BUNDLE ...] [--count N] [--steps 4,8,28]
        [--full-size BUNDLE --gpu "RTX 5090" --size 1024x1024] [--plot FILE] [--json]

The bundles are of the small Kontext, exported with --step-cache. The first is the reference: the answers of all are
compared with its own in many steps, from the same noise. Torch emulates what is quantized. Seconds are reckoned for the
model of a bundle of full size: its graphs' work, at the rates of a GPU's data sheet.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...engine.bundle.bundle import Bundle
from ...engine.components import DENOISER
from ...engine.errors import RequestError
from ...engine.sizes import parse_size
from ...export.environment import quiet_libraries, require_export
from ...export.graphs.recipes import RECIPES
from ...runtime.kontext import Kontext
from ..bench.reckoning import SHEETS, Reckoning, sheet
from ..bench.records import Case
from ..environment import require_report
from ..program import positive, print_rows, result_file, run_main
from .editbench.cases import NUM_CASES, EditCase, cases
from .step_table import (
    REFERENCE_STEPS,
    STEPS,
    Setting,
    Tally,
    check_caching,
    measure_beside,
    references,
    rows,
    settings,
    step_counts,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Holds what a precision's answers are with each setting."""

    precision: str
    tallies: dict[Setting, Tally]


def precision_of(bundle: Bundle) -> str:
    """Return the recipe that a bundle was quantized by, or the type of its denoiser's weights."""
    graph = bundle.graph(DENOISER.name)
    return graph.quantization.recipe if graph.quantization is not None else graph.precision.value


def measure(
    bundles: Sequence[Bundle], chosen: Sequence[EditCase], wanted: Sequence[Setting], reference_steps: int
) -> list[Measured]:
    """Return what each bundle's answers are with each setting, beside the first bundle's answers in many steps.

    Raises:
        BundleError: A bundle is of another model, or its steps cannot be cached.
    """
    from ...export.emulate.torch_executor import TorchExecutor

    found = []
    ends = None
    for bundle in bundles:
        with Kontext(bundle, TorchExecutor(bundle, hold_weights=True)) as kontext:
            check_caching(kontext)
            ends = references(kontext, chosen, reference_steps) if ends is None else ends
            tallies = measure_beside(kontext, chosen, wanted, ends)
        found.append(Measured(precision=precision_of(bundle), tallies=tallies))
    return found


def seconds_of(reckoning: Reckoning, precision: str, setting: Setting) -> float | None:
    """Return the seconds that a picture is reckoned at; None where the GPU has no rate for the precision."""
    recipe = RECIPES.get(precision)
    if recipe is None:
        return None
    others, whole = reckoning.other_seconds(setting.steps), reckoning.step_seconds(recipe)
    cached = reckoning.step_seconds(recipe, cached=True) if setting.half else 0.0
    if others is None or whole is None or cached is None:
        return None
    return others + setting.whole_steps * whole + (setting.steps - setting.whole_steps) * cached


def table(found: Sequence[Measured], reckoning: Reckoning | None) -> list[dict[str, object]]:
    """Return the table: a row per precision and setting."""
    made = []
    for one in found:
        for setting, row in zip(one.tallies, rows(one.tallies), strict=True):
            seconds = None if reckoning is None else seconds_of(reckoning, one.precision, setting)
            made.append(
                {"precision": one.precision, **row, "reckoned_s": None if seconds is None else round(seconds, 3)}
            )
    return made


def main() -> None:
    """Measure the table of some bundles, print it, and draw it."""
    parser = argparse.ArgumentParser(description="What precision, steps, solver and cached steps cost together.")
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--count", type=positive, default=NUM_CASES, help="the first requests of EditBench")
    parser.add_argument("--steps", default=",".join(map(str, STEPS)), help="numbers of steps")
    parser.add_argument("--reference-steps", type=positive, default=REFERENCE_STEPS)
    parser.add_argument("--full-size", type=Path, help="a bundle, not quantized, of the model that seconds are of")
    parser.add_argument("--gpu", default=next(iter(SHEETS)), help=f"whose seconds: {', '.join(SHEETS)}")
    parser.add_argument("--size", default="1024x1024", help="WIDTHxHEIGHT of output and reference")
    parser.add_argument("--plot", type=result_file, help="a PNG of loss over seconds; with --full-size")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.plot is not None and arguments.full_size is None:
        raise RequestError("a plot is of loss over seconds, which are reckoned of a bundle of --full-size")
    wanted, chosen = settings(step_counts(arguments.steps)), cases(min(arguments.count, NUM_CASES))
    ceilings, size = sheet(arguments.gpu), parse_size(arguments.size)
    bundles = [Bundle.open(path) for path in arguments.bundles]
    reckoning = None
    if arguments.full_size is not None:
        case = Case(size=size, reference=size, steps=1, batch=1, seed=0, guidance=0.0, prompt="")
        reckoning = Reckoning(Bundle.open(arguments.full_size), ceilings, case)
    require_export("emulating")
    if arguments.plot is not None:
        require_report()
    quiet_libraries()
    made = table(measure(bundles, chosen, wanted, arguments.reference_steps), reckoning)
    about = {
        "reference": bundles[0].fingerprint[:12],
        "requests": len(chosen),
        "reference_steps": arguments.reference_steps,
        "reckoned_on": arguments.gpu if reckoning is not None else None,
        "rates": ceilings.how if reckoning is not None else None,
    }
    if arguments.plot is not None:
        from ..figures import png
        from .precision_plot import draw

        arguments.plot.write_bytes(png(draw(made, f"{arguments.gpu}, {arguments.size}, reckoned")))
    print_rows(about, made, as_json=arguments.json)


if __name__ == "__main__":
    run_main(main)
