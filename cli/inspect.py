"""Defines the command `inspect`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from ..engine.bundle.bundle import Bundle
from ..engine.byte_sizes import human_bytes
from ..engine.errors import BundleError
from ..engine.plans.store import PlanStore
from .options import BundleArgument, JsonOption
from .plans import show_plans
from .terminal import notes, print_json, progress_bars, screen


def inspect(
    bundle: BundleArgument,
    verify: Annotated[bool, typer.Option(help="Also sample every tensor of the weights.")] = False,
    full: Annotated[bool, typer.Option(help="Also read every byte of weights exported with --hash-weights.")] = False,
    json: JsonOption = False,
) -> None:
    """Show what a bundle holds: components, precisions, sizes, parameters, bytes, plans."""
    opened = Bundle.open(bundle)
    manifest, plans = opened.manifest, list(PlanStore.of(opened.path).entries())
    problems: list[str] = []
    if verify or full:
        with progress_bars() as bars:
            if full:
                bars.start(
                    "reading all weights", sum(record.size_bytes for record in manifest.weights if record.sha256)
                )
            problems = opened.verify(whole=full, on_bytes=bars.advance)
    if json:
        print_json({"fingerprint": opened.fingerprint, "problems": problems, "manifest": manifest, "plans": plans})
    else:
        _show(opened)
        show_plans(plans)
        if verify or full:
            unhashed = [record.path for record in manifest.weights if record.sha256 is None]
            if full and unhashed:
                notes.print(f"no full hash was recorded for {', '.join(unhashed)}: export with --hash-weights for that")
            if not problems:
                screen.print("verified: nothing is missing or altered")
    if problems:
        raise BundleError(f"{bundle}: " + "; ".join(problems))


def _show(bundle: Bundle) -> None:
    manifest = bundle.manifest
    table = Table("component", "precision", "opset", "parameters", "weights", "graph", box=None)
    sizes = {record.path: record.size_bytes for record in manifest.files}
    for name, graph in manifest.graphs.items():
        table.add_row(
            name,
            graph.precision.value + (f", {graph.quantization.recipe}" if graph.quantization else ""),
            f"{graph.opset} {graph.operators}",
            f"{graph.num_parameters:,}",
            human_bytes(graph.weight_bytes),
            human_bytes(sizes[graph.path]),
        )
    screen.print(table)
    model = manifest.model
    for record in manifest.weights:
        screen.print(f"{record.path}  {human_bytes(record.size_bytes)}  {record.origin}")
    sizes_text = " ".join(f"{width}x{height}" for width, height in model.sizes)
    screen.print(
        f"{model.num_double_blocks} double and {model.num_single_blocks} single blocks, hidden {model.dims.hidden}"
    )
    screen.print(f"sizes {sizes_text}")
    screen.print(f"from {manifest.source} by {manifest.producer}, {manifest.created}")
    screen.print(f"fingerprint {bundle.fingerprint}")
