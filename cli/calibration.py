"""Defines the commands `calibrate` and `calibration show | diff`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..engine.byte_sizes import human_bytes
from ..engine.printable import counted
from ..export.checks import check_calibrate
from ..export.environment import quiet_libraries, require_quantize
from ..export.quantize.calibration import PERCENTILES, Calibration, CalibrationOptions, differences
from ..export.quantize.checks import default_artefact
from .options import JsonOption, UnquantizedArgument, spread
from .quantize import PercentileOption, TorchOptions
from .tables import print_table
from .terminal import IMPORTING, print_json, progress_bars, screen, working

calibration = typer.Typer(help="Look at calibrations.", no_args_is_help=True)


@spread
def calibrate(
    bundle: UnquantizedArgument,
    samples: Annotated[
        Path, typer.Argument(help="A folder of pictures with a .csv or .txt file of instructions.", show_default=False)
    ],
    *,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Default: BUNDLE.calibration.json.")] = None,
    seed: Annotated[int, typer.Option(help="The first sample's seed; the next have the next.")] = 0,
    limit: Annotated[int | None, typer.Option(help="Run only so many samples.")] = None,
    torch: TorchOptions,
    json: JsonOption = False,
) -> None:
    """See how large activations get: run a bundle on samples, with torch. An interrupted run is continued."""
    require_quantize()
    artefact = out or default_artefact(bundle)
    options = CalibrationOptions(steps=torch.steps, seed=seed, device=torch.device, limit=limit)
    check_calibrate(bundle, samples, artefact)
    with working(IMPORTING):
        quiet_libraries()
        from ..export.quantize.calibrate import calibrate_bundle

    with progress_bars() as bars:
        made = calibrate_bundle(bundle, samples, artefact, options, bars)
    if json:
        print_json({"path": artefact, "sha256": made.sha256, "samples": len(made.samples), "skipped": made.skipped})
        return
    skipped = f", {len(made.skipped)} skipped" if made.skipped else ""
    seen = f"{counted(len(made.observations), 'activation')} over {counted(len(made.samples), 'sample')}{skipped}"
    screen.print(f"{artefact}: {seen}, {human_bytes(artefact.stat().st_size)}")


@calibration.command()
def show(
    file: Annotated[Path, typer.Argument(help="A calibration.", show_default=False)], json: JsonOption = False
) -> None:
    """Show what was seen of each activation."""
    opened = Calibration.open(file)
    rows = {
        name: {"amax": one.amax, **{f"p{percent:g}": one.percentile(percent) for percent in PERCENTILES}}
        | {"tensors": one.tensors, "values": one.values}
        for name, one in opened.observations.items()
    }
    if json:
        print_json({"sha256": opened.sha256, "complete": opened.complete, "activations": rows})
        return
    print_table(
        ["activation", *next(iter(rows.values()), {})],
        [
            [name, *(f"{value:.4g}" if isinstance(value, float) else f"{value:,}" for value in row.values())]
            for name, row in rows.items()
        ],
        right=True,
    )
    state = "" if opened.complete else ", interrupted"
    samples = f"{counted(len(opened.samples), 'sample')} of {counted(opened.steps, 'step')}"
    screen.print(f"{samples}, {len(opened.skipped)} skipped{state}")


@calibration.command()
def diff(
    before: Annotated[Path, typer.Argument(help="A calibration.", show_default=False)],
    after: Annotated[Path, typer.Argument(help="Another.", show_default=False)],
    percentile: PercentileOption = None,
    json: JsonOption = False,
) -> None:
    """Show which ranges differ between two calibrations, the largest change first."""
    changes = list(differences(Calibration.open(before), Calibration.open(after), percentile))
    if json:
        print_json(changes)
        return
    if not changes:
        screen.print("no range differs")
        return
    print_table(
        ("activation", "before", "after", "times"),
        [
            (
                change.name,
                *("-" if value is None else f"{value:.4g}" for value in (change.before, change.after)),
                f"{change.ratio:.3f}",
            )
            for change in changes
        ],
        right=True,
    )
