"""Commands that make and keep plans: `build` and `plans list | verify | prune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..engine.builder.build import Built
from ..engine.builder.build_plans import build_plans
from ..engine.builder.plan_build import BuildPolicy
from ..engine.bundle.bundle import Bundle
from ..engine.byte_sizes import human_bytes, parse_bytes
from ..engine.errors import PlanError
from ..engine.plans.coverage import Coverage, Task
from ..engine.plans.options import BuildOptions, Compatibility, Refit
from ..engine.plans.prune import prune_store
from ..engine.plans.store import Entry, PlanStore
from ..engine.sizes import parse_size
from .terminal import JsonOption, notes, print_json, progress_bars, screen

plans = typer.Typer(help="List, check and remove a bundle's plans.", no_args_is_help=True)
StoreOption = Annotated[Path | None, typer.Option(help="A folder of plans that is not the bundle's own.")]
TrustOption = Annotated[bool, typer.Option(help="Open plans that are not the bundle's own; they are executable code.")]


def build(
    bundle: Annotated[Path, typer.Argument(help="A bundle.", show_default=False)],
    gpu: Annotated[
        list[str] | None, typer.Option(help='sm_89, "rtx 5090", current or portable; several times for several.')
    ] = None,
    flavour: Annotated[str, typer.Option(help="auto, tensorrt or tensorrt_rtx.")] = "auto",
    component: Annotated[list[str] | None, typer.Option(help="Only this component; several times for several.")] = None,
    size: Annotated[list[str] | None, typer.Option(help="Only this WIDTHxHEIGHT; several times for several.")] = None,
    task: Annotated[Task | None, typer.Option(help="Only this task. Default: both.")] = None,
    batch: Annotated[int, typer.Option(help="The largest batch.")] = 1,
    max_steps: Annotated[int, typer.Option(help="The most steps of a request.")] = 50,
    workspace: Annotated[str | None, typer.Option(help="GPU memory a kernel may use beside activations: 2GiB.")] = None,
    optimization_level: Annotated[int | None, typer.Option(help="0 (fast build) to 5 (fast plan).")] = None,
    max_aux_streams: Annotated[int | None, typer.Option(help="Streams beside the caller's.")] = None,
    refit: Annotated[Refit, typer.Option(help="Whether weights can be exchanged in the plan.")] = Refit.NONE,
    strip: Annotated[
        bool,
        typer.Option(
            help="Leave weights out, for software that refits; needs --refit. `edit` does not run such plans."
        ),
    ] = False,
    weight_streaming: Annotated[bool, typer.Option(help="Weights may stay in host memory.")] = False,
    compatibility: Annotated[
        Compatibility, typer.Option(help="Which other GPUs may run the plan (TensorRT).")
    ] = Compatibility.NONE,
    rebuild: Annotated[bool, typer.Option(help="Build even what is there.")] = False,
    allow_fallback: Annotated[bool, typer.Option(help="Keep engines that are not in the precision asked for.")] = False,
    preflight: Annotated[bool, typer.Option(help="Refuse if memory or disk will not suffice.")] = True,
    timing_cache: Annotated[bool, typer.Option(help="Use the bundle's timing cache (TensorRT).")] = True,
    timeout: Annotated[float | None, typer.Option(help="Seconds that one plan may take.")] = None,
    json: JsonOption = False,
) -> None:
    """Build a bundle's plans for one GPU or several. What is there already is kept."""
    opened = Bundle.open(bundle)
    coverage = Coverage(
        sizes=tuple(map(parse_size, size)) if size else opened.manifest.model.sizes,
        tasks=tuple(Task) if task is None else (task,),
        batch=batch,
        max_steps=max_steps,
    )
    options = BuildOptions(
        workspace_bytes=parse_bytes(workspace) if workspace else None,
        optimization_level=optimization_level,
        max_aux_streams=max_aux_streams,
        refit=refit,
        strip=strip,
        weight_streaming=weight_streaming,
        compatibility=compatibility,
    )
    policy = BuildPolicy(
        rebuild=rebuild,
        allow_fallback=allow_fallback,
        preflight=preflight,
        timing_cache=timing_cache,
        timeout_s=timeout,
    )
    notes.print(f"covers {coverage.describe()}; {options.describe()}")
    with progress_bars() as bars:
        built = build_plans(
            opened,
            gpus=gpu or ("current",),
            flavour=flavour,
            components=component,
            coverage=coverage,
            options=options,
            policy=policy,
            progress=bars,
            on_built=lambda plan: _say(plan, json),
        )
    if json:
        print_json([{"path": plan.path, "reused": plan.reused, "manifest": plan.manifest} for plan in built])


@plans.command("list")
def list_plans(
    bundle: Annotated[Path, typer.Argument(help="A bundle.", show_default=False)],
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
    bundle: Annotated[Path, typer.Argument(help="A bundle.", show_default=False)],
    store: StoreOption = None,
    trust: TrustOption = False,
    json: JsonOption = False,
) -> None:
    """Read every byte of every plan and compare it with its manifest. Exit code 1 if any is not sound."""
    opened = _store(bundle, store, trust=trust)
    entries = list(opened.entries())
    with progress_bars() as bars:
        bars.start("reading plans", sum(entry.path.stat().st_size for entry in entries))
        problems = [problem for entry in entries for problem in opened.problems(entry, bars.advance)]
    if json:
        print_json({"plans": len(entries), "problems": problems})
    elif not problems:
        screen.print(f"{len(entries)} plans, all sound")
    if problems:
        raise PlanError("; ".join(problems))


@plans.command()
def prune(
    bundle: Annotated[Path, typer.Argument(help="A bundle.", show_default=False)],
    everything: Annotated[bool, typer.Option("--all", help="Also plans that are sound.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only say what would be removed.")] = False,
    json: JsonOption = False,
) -> None:
    """Remove unfinished, damaged and outdated plans. One that is in use is kept."""
    opened = Bundle.open(bundle)
    done = prune_store(PlanStore.of(opened.path), opened, everything=everything, dry_run=dry_run)
    if json:
        print_json(done)
        return
    for removal in done:
        verb = "kept, in use:" if removal.in_use else "would remove" if dry_run else "removed"
        screen.print(f"{verb} {removal.path} ({removal.reason})")
    freed = sum(removal.size_bytes for removal in done if not removal.in_use)
    screen.print(f"{human_bytes(freed)} {'would be ' if dry_run else ''}freed")


def show_plans(entries: list[Entry]) -> None:
    """A paragraph a plan."""
    if not entries:
        screen.print("no plans; build them with: kontext-trt build BUNDLE --gpu current")
    for entry in entries:
        if entry.manifest is None:
            screen.print(f"{entry.component}: {entry.problem}")
            continue
        plan, census = entry.manifest, entry.manifest.census
        memory = f"weights {human_bytes(census.weight_bytes)}, activations {human_bytes(census.activation_bytes)}"
        for line in (
            f"{entry.component} {plan.ingredients.precision.value} for {plan.ingredients.target}, "
            f"{human_bytes(plan.size_bytes)}, key {plan.key}",
            f"    covers {plan.ingredients.coverage.describe()}; {plan.ingredients.options.describe()}",
            f"    {census.describe()}; {memory}, inputs and outputs {human_bytes(census.io_bytes)}",
            f"    built in {plan.build.seconds:.1f} s with {human_bytes(plan.build.peak_bytes)}, {plan.created}"
            + ("" if plan.build.options == plan.ingredients.options else f"; with {plan.build.options.describe()}"),
            *(f"    warning: {warning}" for warning in plan.warnings),
        ):
            screen.print(line)


def _say(plan: Built, json: bool) -> None:
    manifest = plan.manifest
    how = "already built" if plan.reused else f"{manifest.build.seconds:.1f} s"
    (notes if json else screen).print(
        f"{manifest.ingredients.component} for {manifest.ingredients.target}: {human_bytes(manifest.size_bytes)}, "
        f"{how}; {manifest.census.describe()}",
    )


def _store(bundle: Path, folder: Path | None, *, trust: bool = False) -> PlanStore:
    path = Bundle.open(bundle).path
    if folder is not None and not folder.is_dir():
        raise PlanError(f"there is no store at {folder}")
    return PlanStore.of(path, trust=trust) if folder is None else PlanStore(bundle=path, folder=folder, trust=trust)
