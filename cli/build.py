"""Defines the command `build`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..engine.builder.build import Built
from ..engine.builder.build_plans import build_plans
from ..engine.builder.plan_build import BuildPolicy
from ..engine.bundle.bundle import Bundle
from ..engine.byte_sizes import human_bytes, parse_bytes
from ..engine.plans.coverage import Coverage, Task
from ..engine.plans.options import BuildOptions, Compatibility, Refit
from ..engine.sizes import parse_size
from .options import BundleArgument, JsonOption
from .terminal import notes, print_json, progress_bars, screen


def build(
    bundle: BundleArgument,
    gpu: Annotated[
        list[str] | None, typer.Option(help='sm_89, "rtx 5090", current or portable; several times for several.')
    ] = None,
    flavour: Annotated[str, typer.Option(help="auto, tensorrt or tensorrt_rtx.")] = "auto",
    component: Annotated[list[str] | None, typer.Option(help="Only this component; several times for several.")] = None,
    size: Annotated[list[str] | None, typer.Option(help="Only this WIDTHxHEIGHT; several times for several.")] = None,
    task: Annotated[Task | None, typer.Option(help="Only this task. Default: both.")] = None,
    batch: Annotated[int, typer.Option(help="The largest batch.")] = 1,
    max_steps: Annotated[int, typer.Option(help="The most steps of a request.")] = 50,
    references: Annotated[int, typer.Option(help="The most references of an edit.")] = 1,
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
    store: Annotated[Path | None, typer.Option(help="A folder for the plans that is not the bundle's own.")] = None,
    json: JsonOption = False,
) -> None:
    """Build a bundle's plans for one GPU or several. What is there already is kept."""
    opened = Bundle.open(bundle)
    coverage = Coverage(
        sizes=tuple(map(parse_size, size)) if size else opened.manifest.model.sizes,
        tasks=tuple(Task) if task is None else (task,),
        batch=batch,
        max_steps=max_steps,
        references=references,
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
            store=store,
            progress=bars,
            on_built=lambda plan: _say(plan, json),
        )
    if json:
        print_json([{"path": plan.path, "reused": plan.reused, "manifest": plan.manifest} for plan in built])


def _say(plan: Built, json: bool) -> None:
    manifest = plan.manifest
    how = "already built" if plan.reused else f"{manifest.build.seconds:.1f} s"
    (notes if json else screen).print(
        f"{manifest.ingredients.component} for {manifest.ingredients.target}: {human_bytes(manifest.size_bytes)}, "
        f"{how}; {manifest.census.describe()}",
    )
