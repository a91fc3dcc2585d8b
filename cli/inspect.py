"""Defines the command `inspect`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from ..engine.bundle.bundle import Bundle, Verification
from ..engine.byte_sizes import human_bytes
from ..engine.errors import BundleError
from ..engine.plans.store import PlanStore
from ..runtime.flow.kept import kept_bytes
from .options import BundleArgument, JsonOption
from .plans import show_plans
from .tables import print_table
from .terminal import print_json, progress_bars, screen


def inspect(
    bundle: BundleArgument,
    verify: Annotated[bool, typer.Option(help="Also sample every tensor of the weights.")] = False,
    full: Annotated[bool, typer.Option(help="Also read every byte of weights exported with --hash-weights.")] = False,
    json: JsonOption = False,
) -> None:
    """Show what a bundle holds: components, precisions, sizes, parameters, bytes, plans.

    With --verify or --full it also says what was compared with the bundle's manifest, and what was not. Exit code 1 if
    something is not as it says, or with --full if not every byte could be compared.
    """
    opened = Bundle.open(bundle)
    manifest, plans = opened.manifest, list(PlanStore.of(opened.path).entries())
    found = Verification(problems=(), checked=(), unchecked=())
    if verify or full:
        with progress_bars() as bars:
            if full:
                bars.start(
                    "reading all weights", sum(record.size_bytes for record in manifest.weights if record.sha256)
                )
            found = opened.verify(whole=full, on_bytes=bars.advance)
    if json:
        print_json({"fingerprint": opened.fingerprint, **asdict(found), "manifest": manifest, "plans": plans})
    else:
        show_bundle(opened)
        show_plans(plans)
        if verify or full:
            _show_verification(found)
    if found.problems:
        raise BundleError(f"{bundle}: " + "; ".join(found.problems))
    if full and opened.unhashed:
        raise BundleError(
            f"{bundle}: not all was checked: the export recorded no hash of every byte of {', '.join(opened.unhashed)} "
            "(--hash-weights)"
        )


def _show_verification(found: Verification) -> None:
    if not found.problems:
        for words in found.checked:
            screen.print(f"checked, and as the manifest says: {words}")
    for words in found.unchecked:
        screen.print(f"not checked: {words}")


def show_bundle(bundle: Bundle) -> None:
    """Print what a bundle holds."""
    manifest = bundle.manifest
    sizes = {record.path: record.size_bytes for record in manifest.files}
    rows = [
        (
            name,
            graph.precision.value + (f", {graph.quantization.recipe}" if graph.quantization else ""),
            f"{graph.opset} {graph.operators}",
            f"{graph.num_parameters:,}",
            human_bytes(graph.weight_bytes),
            human_bytes(sizes[graph.path]),
        )
        for name, graph in manifest.graphs.items()
    ]
    print_table(("component", "precision", "opset", "parameters", "weights", "graph"), rows)
    model = manifest.model
    for record in manifest.weights:
        screen.print(f"{record.path}  {human_bytes(record.size_bytes)}  {record.origin}")
    sizes_text = " ".join(f"{width}x{height}" for width, height in model.sizes)
    screen.print(
        f"{model.num_double_blocks} double and {model.num_single_blocks} single blocks, hidden {model.dims.hidden}"
    )
    screen.print(f"sizes {sizes_text}")
    if manifest.branches is not None:
        count = sum(map(len, manifest.branches.layers.values()))
        screen.print(
            f"branches of rank {manifest.branches.rank} in {count} layers for LoRAs, {human_bytes(kept_bytes(bundle))} "
            "of inputs"
        )
    for lora in manifest.loras:
        screen.print(f"fused LoRA {lora.name} times {lora.scale:g} ({lora.family}), sha256 {lora.sha256}")
    screen.print(f"from {manifest.source} by {manifest.producer}, {manifest.created}")
    screen.print(f"fingerprint {bundle.fingerprint}")
