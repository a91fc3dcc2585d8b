"""Defines the commands `plans list | verify | trust | prune`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..engine.bundle.bundle import Bundle
from ..engine.byte_sizes import human_bytes
from ..engine.errors import PlanError, UntrustedPlanError
from ..engine.plans.census import remarks
from ..engine.plans.plan_files import Entry
from ..engine.plans.prune import prune_store
from ..engine.plans.store import PlanStore
from ..engine.printable import counted, printable_line
from ..engine.system.signing import key_path
from .options import BundleArgument, JsonOption
from .terminal import print_json, progress_bars, screen

plans = typer.Typer(help="List, check, sign and remove a bundle's plans.", no_args_is_help=True)
NO_PLANS = "no plans; build them with: kontext-trt build BUNDLE --gpu current"
StoreOption = Annotated[Path | None, typer.Option(help="A folder of plans that is not the bundle's own.")]
TrustOption = Annotated[bool, typer.Option(help="Also plans that you did not sign; they are executable code.")]


@plans.command("list")
def list_plans(
    bundle: BundleArgument,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Show what plans there are: for which target, how large, and what the compiler made of each graph."""
    entries = list(_store(bundle, store).entries())
    if json:
        print_json(entries)
        return
    show_plans(entries)


@plans.command()
def verify(
    bundle: BundleArgument,
    store: StoreOption = None,
    trust: TrustOption = False,
    json: JsonOption = False,
) -> None:
    """Read every byte of every plan and compare it with its manifest. Exit code 1 if any is not sound."""
    opened = _store(bundle, store, trust=trust)
    entries = list(opened.entries())
    with progress_bars() as bars:
        bars.start("reading plans", sum(entry.size_bytes for entry in entries))
        problems = [problem for entry in entries for problem in opened.problems(entry, bars.advance)]
    if json:
        print_json({"plans": len(entries), "problems": problems})
    elif not problems:
        screen.print(f"{counted(len(entries), 'plan')}, all sound" if entries else NO_PLANS)
    if problems:
        raise PlanError("; ".join(problems))


@plans.command()
def trust(
    bundle: BundleArgument,
    store: StoreOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonOption = False,
) -> None:
    """Sign the plans that you did not build, so that they are opened as if you had.

    Plans are executable code, which runs with your rights: sign those that you built yourself, here or elsewhere, or
    whose maker you trust. They are shown first, and read whole: those that are not as their manifest says are not
    signed.
    """
    opened = _store(bundle, store)
    entries = [entry for entry in opened.entries() if entry.manifest is not None and not entry.signed]
    if not json:
        show_plans(entries, none="every sound plan is signed by you")
    if entries and not yes:
        if not sys.stdin.isatty():
            raise UntrustedPlanError("nobody can be asked whether these plans are to be trusted; say it with --yes")
        typer.confirm("Sign them? They are executable code.", abort=True)
    problems: list[str] = []
    for entry in entries:
        try:
            opened.sign(entry.component, entry.key)
        except PlanError as error:
            problems.append(str(error))
    if json:
        print_json({"plans": entries, "problems": problems})
    elif entries:
        screen.print(f"{counted(len(entries) - len(problems), 'plan')} signed with {key_path()}")
    if problems:
        raise PlanError("; ".join(problems))


@plans.command()
def prune(
    bundle: BundleArgument,
    store: StoreOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Also plans that are sound.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only say what would be removed.")] = False,
    json: JsonOption = False,
) -> None:
    """Remove unfinished, damaged and outdated plans. One that is in use is kept."""
    opened = _store(bundle, store)
    done = prune_store(opened, Bundle.open(bundle), everything=everything, dry_run=dry_run)
    if json:
        print_json(done)
        return
    for removal in done:
        verb = "kept, in use:" if removal.in_use else "would remove" if dry_run else "removed"
        screen.print(f"{verb} {removal.path} ({removal.reason})")
    freed = sum(removal.size_bytes for removal in done if not removal.in_use)
    screen.print(f"{human_bytes(freed)} {'would be ' if dry_run else ''}freed")


def show_plans(entries: Sequence[Entry], *, none: str = NO_PLANS) -> None:
    """Print a paragraph per plan, or `none`."""
    if not entries:
        screen.print(none)
    for entry in entries:
        if entry.manifest is None:
            screen.print(printable_line(f"{entry.component}: {entry.problem}"))
            continue
        plan, census = entry.manifest, entry.manifest.census
        memory = f"weights {human_bytes(census.weight_bytes)}, activations {human_bytes(census.activation_bytes)}"
        for line in (
            f"{entry.component} {plan.ingredients.precision.value} for {plan.ingredients.target}, "
            f"{human_bytes(plan.size_bytes)}, key {plan.key}",
            f"    covers {plan.ingredients.coverage.describe()}; {plan.ingredients.options.describe()}; "
            + ("recorded in CUDA graphs" if plan.build.options.recordable else "streams weights, in no CUDA graph"),
            f"    {census.describe()}; {memory}, inputs and outputs {human_bytes(census.io_bytes)}",
            f"    built in {plan.build.seconds:.1f} s with {human_bytes(plan.build.peak_bytes)}, {plan.created}"
            + ("" if plan.build.options == plan.ingredients.options else f"; with {plan.build.options.describe()}"),
            *(f"    warning: {warning}" for warning in plan.warnings),
            *(f"    note: {remark}" for remark in remarks(census)),
            *([] if entry.signed else ["    not signed by you: opened with --trust, or after kontext-trt plans trust"]),
        ):
            screen.print(line)


def _store(bundle: Path, folder: Path | None, *, trust: bool = False) -> PlanStore:
    path = Bundle.open(bundle).path
    if folder is not None and not folder.is_dir():
        raise PlanError(f"there is no store at {folder}")
    return PlanStore.of(path, folder, trust=trust)
