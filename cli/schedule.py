"""Defines the command `schedule`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..benchmarks.quality.choose_schedule import REFERENCE_STEPS, ChoosingOptions, choose_schedule
from ..engine.bundle.bundle import Bundle
from ..engine.errors import OptionError
from ..engine.system.changes import telling_changes
from ..export.environment import require_export
from ..export.quantize.samples import read_samples
from ..runtime.inputs.request import Request
from ..runtime.inputs.schedule_file import check_schedule_place
from .making import RunOptions, opened
from .options import ExportedArgument, JsonOption, spread
from .terminal import notes, print_json, progress_bars, screen


@spread
def schedule(
    bundle: ExportedArgument,
    out: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
    *,
    requests: Annotated[
        Path, typer.Option(help="A folder of pictures and instructions, as `calibrate` takes it.", show_default=False)
    ],
    share: Annotated[float, typer.Option(help="The cost that is allowed, as a share of the whole steps.")] = 0.5,
    steps: Annotated[int | None, typer.Option(help="The whole steps it is a share of. Default: the bundle's.")] = None,
    reference_steps: Annotated[int, typer.Option(help="Steps of what answers are compared with.")] = REFERENCE_STEPS,
    seed: Annotated[int, typer.Option("--seed", "-s", help="Of the first request; the next have the next.")] = 0,
    run: RunOptions,
    json: JsonOption = False,
) -> None:
    """Choose solver, noise levels and cached steps for a share of the cost, by requests of one's own."""
    if not 0 < share <= 1:
        raise OptionError(f"--share is above 0, up to 1, not {share:g}")
    check_schedule_place(out)
    Bundle.open(bundle)  # raises for what is none, before pictures are read
    require_export()
    samples, _ = read_samples(requests)
    asked = [Request(prompt=one.instruction, image=one.picture) for one in samples]
    options = ChoosingOptions(share=share, of_steps=steps, reference_steps=reference_steps, seed=seed)
    with opened(bundle, run, graphs=False) as kontext, progress_bars() as bars:
        made = choose_schedule(kontext, asked, options, bars)
    with telling_changes([out], notes.print):
        made.save(out)
    if json:
        print_json({"path": str(out), "schedule": made})
        return
    mask = "" if made.step_mask is None else f", of which {len(made.sigmas) - sum(made.step_mask)} are cached"
    screen.print(
        f"{out}: {len(made.sigmas)} steps of {made.solver.value}{mask}, {made.cost:.2f} of {made.of_steps} steps"
    )
    screen.print(
        f"{made.latents_db:.1f} dB from the flow of {reference_steps} steps, and all {made.of_steps} have "
        f"{made.of_steps_db:.1f} dB, on {made.requests} requests"
    )
