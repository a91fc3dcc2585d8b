"""Defines the command that judges pictures: `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from ..benchmarks.quality.editbench.cases import NUM_CASES
from ..benchmarks.quality.editbench.contact_sheet import contact_sheet
from ..benchmarks.quality.editbench.evaluation import Evaluation, check_model
from ..benchmarks.quality.editbench.evaluation import evaluate as run_editbench
from ..engine.bundle.bundle import Bundle
from ..engine.errors import OptionError
from ..engine.system.files import atomic_file
from ..export.environment import quiet_libraries, require_export
from ..runtime.executors.options import ExecutorName
from ..runtime.kontext import Kontext
from .edit import ExecutorOption, StepsOption
from .options import JsonOption
from .terminal import notes, print_json, progress_bars, screen

SHEET, REPORT = "editbench.png", "editbench.json"


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="A bundle of the small Kontext.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help=f"The folder for {SHEET} and {REPORT}.")] = Path("editbench"),
    count: Annotated[int, typer.Option(help=f"The first so many of the {NUM_CASES} requests.")] = NUM_CASES,
    seed: Annotated[int, typer.Option("--seed", "-s", help="Of the noise.")] = 0,
    steps: StepsOption = None,
    executor: ExecutorOption = ExecutorName.AUTO,
    emulate: Annotated[
        bool,
        typer.Option(
            "--emulate",
            help="Torch computes, and rounds what is quantized: for types that this machine's executors lack.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Run EditBench on a bundle: held-out requests whose right answers are known."""
    if not 1 <= count <= NUM_CASES:
        raise OptionError(f"--count must be 1 to {NUM_CASES}, not {count}")
    if emulate and executor is not ExecutorName.AUTO:
        raise OptionError(f"--emulate computes with torch; leave out --executor {executor.value}")
    opened = _open_emulated(bundle) if emulate else Kontext.open(bundle, executor=executor.options())
    with opened as kontext, progress_bars() as bars:
        check_model(kontext)
        made = run_editbench(kontext, count=count, seed=seed, steps=steps, progress=bars)
    out.mkdir(parents=True, exist_ok=True)
    with atomic_file(out / SHEET) as file:
        contact_sheet(made.answers).save(file, format="PNG", optimize=True)
    with atomic_file(out / REPORT) as file:
        file.write(msgspec.json.format(msgspec.json.encode(made.to_dict()), indent=1))
    if json:
        print_json(made.to_dict())
    else:
        _show(made)
    notes.print(f"{made.seconds:.0f} s, {made.steps} steps on {made.executor}; {out / SHEET}, {out / REPORT}")


def _open_emulated(bundle: Path) -> Kontext:
    require_export()
    quiet_libraries()
    from ..export.emulate.torch_executor import TorchExecutor

    opened = Bundle.open(bundle)
    return Kontext(opened, TorchExecutor(opened, hold_weights=True))


def _show(made: Evaluation) -> None:
    table = Table("", "requests", "success", "inside dB", "outside dB", box=None)
    for row in made.rows:
        outside = "" if row.outside_db is None else f"{row.outside_db:.1f}"
        table.add_row(row.name, f"{row.number}", f"{100 * row.success:.0f} %", f"{row.inside_db:.1f}", outside)
    screen.print(table)
    if made.median_outside_db is not None:
        screen.print(f"outside the edited region, the median answer has {made.median_outside_db:.1f} dB")
    drift = ", ".join(f"{turn.untouched_db:.1f}" for turn in made.turns)
    kept = ", ".join(f"{100 * turn.success:.0f}" for turn in made.turns)
    screen.print(f"edits in a row: untouched pixels have {drift} dB after each; {kept} % of pictures are right")
