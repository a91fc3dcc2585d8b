"""Defines the command that judges pictures: `evaluate`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from ..benchmarks.quality.editbench.cases import NUM_CASES, TURNS
from ..benchmarks.quality.editbench.chain_sheet import chain_sheet
from ..benchmarks.quality.editbench.contact_sheet import contact_sheets, describe, failure_sheets
from ..benchmarks.quality.editbench.drift import NUM_SESSIONS, Drift, measure_drift
from ..benchmarks.quality.editbench.evaluation import Evaluation, check_sizes
from ..benchmarks.quality.editbench.evaluation import evaluate as run_editbench
from ..benchmarks.sheets import write_pages
from ..engine.bundle.bundle import Bundle
from ..engine.errors import OptionError
from ..engine.sizes import parse_size
from ..engine.system.changes import telling_changes
from ..engine.system.files import atomic_file
from ..export.environment import quiet_libraries, require_export
from ..runtime.executors.options import ExecutorName
from ..runtime.inputs.request import Sampling
from ..runtime.kontext import Kontext
from . import public_bench
from .making import GuidanceOption, RunOptions, ScheduleOptions, opened
from .options import JsonOption, spread
from .public_bench import BenchOptions, JudgingOptions
from .tables import print_table
from .terminal import IMPORTING, notes, print_json, progress_bars, screen, working

MAX_SESSIONS, MAX_TURNS = 1000, 100
OUT = "editbench"
SHEET, FAILURES_SHEET, SESSIONS_SHEET, REPORT = "editbench.png", "failures.png", "sessions.png", "editbench.json"


@spread
def evaluate(
    bundle: Annotated[
        Path, typer.Argument(help="A bundle; without --bench one of the small Kontext.", show_default=False)
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help=f"The folder of results. Default: {OUT}, with --bench {public_bench.OUT}."),
    ] = None,
    count: Annotated[int | None, typer.Option(help="The first so many requests. Default: all.")] = None,
    seed: Annotated[int, typer.Option("--seed", "-s", help="Of the noise.")] = 0,
    schedule: ScheduleOptions,
    guidance: GuidanceOption = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT of the answers of --bench.")] = None,
    public: BenchOptions,
    judging: JudgingOptions,
    sessions: Annotated[
        int,
        typer.Option(
            help=f"Edit so many pictures in a row as well, as latents and as pixels; {NUM_SESSIONS} is usual."
        ),
    ] = 0,
    turns: Annotated[int, typer.Option(help="The edits in a row of --sessions.")] = len(TURNS),
    run: RunOptions,
    emulate: Annotated[
        bool,
        typer.Option(
            "--emulate",
            help="Torch computes, and rounds what is quantized: for types that this machine's executors lack.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Run EditBench on a bundle, or with --bench a public benchmark: pictures, distances, a judge's marks, a page."""
    if emulate and run.executor is not ExecutorName.AUTO:
        raise OptionError(f"--emulate computes with torch; leave out --executor {run.executor.value}")
    if emulate and run.devices is not None:
        raise OptionError("--emulate computes with torch, on one device; leave out --devices")

    def opener(path: Path) -> AbstractContextManager[Kontext]:
        return _open_emulated(path) if emulate else opened(path, run, graphs=True)

    if public.bench is not None:
        if sessions or turns != len(TURNS):
            raise OptionError("--sessions and --turns are of EditBench, which needs no --bench")
        sampling = Sampling(
            **schedule.keywords(bundle), guidance=guidance, size=None if size is None else parse_size(size)
        )
        public_bench.run(bundle, opener, public.options(out, count, seed, sampling, judging.judge()), as_json=json)
        return
    _refuse_beside_editbench(schedule, guidance, size, public, judging)
    if count is not None and not 1 <= count <= NUM_CASES:
        raise OptionError(f"--count must be 1 to {NUM_CASES}, not {count}")
    if not 0 <= sessions <= MAX_SESSIONS or not 1 <= turns <= MAX_TURNS:
        raise OptionError(
            f"--sessions must be 0 to {MAX_SESSIONS} and --turns 1 to {MAX_TURNS}, not {sessions} and {turns}"
        )
    steps, out = schedule.steps, out or Path(OUT)
    if out.exists() and not out.is_dir():
        raise OptionError(f"{out} is a file; the sheets and the report need a folder: name another with --out")
    check_sizes(Bundle.open(bundle).manifest.model.sizes)
    with opener(bundle) as kontext, progress_bars() as bars:
        made = run_editbench(kontext, count=count or NUM_CASES, seed=seed, steps=steps, progress=bars)
        drift = None
        if sessions:
            drift = measure_drift(kontext, sessions=sessions, turns=turns, seed=seed, steps=steps, progress=bars)
    document = made.to_dict() if drift is None else {**made.to_dict(), "drift": drift.to_dict()}
    files = _write(out, bundle.resolve().name, made, drift, document)
    if json:
        print_json(document)
    else:
        _show(made)
        if drift is not None:
            _show_drift(drift)
    notes.print(f"{made.seconds:.0f} s, {made.steps} steps on {made.executor}; {', '.join(map(str, files))}")


def _refuse_beside_editbench(
    schedule: ScheduleOptions,
    guidance: float | None,
    size: str | None,
    public: BenchOptions,
    judging: JudgingOptions,
) -> None:
    """Raise OptionError for options that only a public benchmark takes."""
    given = {
        "--schedule": schedule.schedule is not None,
        **schedule.given,
        "--steps": False,  # which it takes
        "--guidance": guidance is not None,
        "--size": size is not None,
        **public.given,
        **judging.given,
    }
    named = [name for name, is_given in given.items() if is_given]
    if named:
        raise OptionError(f"{', '.join(named)}: EditBench takes none of it; name a public benchmark with --bench")


def _write(out: Path, name: str, made: Evaluation, drift: Drift | None, document: dict[str, Any]) -> list[Path]:
    """Write the sheets and the report, each whole or not at all, and return the files."""
    with telling_changes([out / SHEET, out / REPORT], notes.print):
        out.mkdir(parents=True, exist_ok=True)
        files = [
            *write_pages(contact_sheets(made, name), out / SHEET),
            *write_pages(failure_sheets(made, name), out / FAILURES_SHEET),
        ]
        if drift is not None:
            made_with = describe(made.bundle, made.executor, made.steps, made.seed)
            files += write_pages([chain_sheet(drift, name, made_with)], out / SESSIONS_SHEET)
        with atomic_file(out / REPORT) as file:
            file.write(msgspec.json.format(msgspec.json.encode(document), indent=1))
    return [*files, out / REPORT]


def _open_emulated(bundle: Path) -> Kontext:
    require_export("emulating")
    with working(IMPORTING):
        quiet_libraries()
        from ..export.emulate.torch_executor import TorchExecutor

    read = Bundle.open(bundle)
    return Kontext(read, TorchExecutor(read, hold_weights=True))


def _show(made: Evaluation) -> None:
    rows: list[tuple[str, ...]] = []
    for row in made.rows:
        outside = "" if row.outside_db is None else f"{row.outside_db:.1f}"
        rows.append((row.name, f"{row.number}", f"{100 * row.success:.0f} %", f"{row.inside_db:.1f}", outside))
    print_table(("", "requests", "success", "inside dB", "outside dB"), rows, right=True)
    if made.median_outside_db is not None:
        screen.print(f"outside the edited region, the median answer has {made.median_outside_db:.1f} dB")
    if not made.turns:
        return
    drift = ", ".join(f"{turn.untouched_db:.1f}" for turn in made.turns)
    kept = ", ".join(f"{100 * turn.success:.0f}" for turn in made.turns)
    screen.print(f"edits in a row: untouched pixels have {drift} dB after each; {kept} % of pictures are right")


def _show_drift(drift: Drift) -> None:
    columns = ("turn", "edit", *(f"{road.carry} dB, right" for road in drift.roads), "alone", "autoencoder dB")
    rows: list[tuple[str, ...]] = []
    for number, through in enumerate(drift.autoencoder_db):
        turns = [road.turns[number] for road in drift.roads]
        cells = (f"{turn.untouched_db:.1f}, {100 * turn.success:.0f} %" for turn in turns)
        alone = f"{100 * drift.alone[number]:.0f} %"
        rows.append((f"{number + 1}", turns[0].task, *cells, alone, f"{through:.1f}"))
    print_table(columns, rows)
    for road in drift.roads:
        screen.print(
            f"carried as {road.carry}, untouched pixels lose {road.lost_db:.1f} dB over {len(road.turns)} turns"
        )
