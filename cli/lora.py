"""Defines the commands `lora show | fuse`, and the options that `export` shares with them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ..engine.byte_sizes import human_bytes
from ..engine.lora.changes import LoraFile, LowRank
from ..engine.lora.choice import LoraChoice
from ..engine.lora.fit import PARTS
from ..engine.lora.read import read_lora
from ..engine.printable import printable_line
from ..export.checks import check_fuse
from ..export.environment import quiet_libraries, require_export
from .options import ExportedArgument, JsonOption
from .tables import print_table
from .terminal import IMPORTING, print_json, progress_bars, screen, working

lora = typer.Typer(help="Show LoRA files, and fuse them into a bundle.", no_args_is_help=True)
UnusedOption = Annotated[
    bool, typer.Option("--allow-unused", help="Leave out tensors of a LoRA that change nothing here. Else refused.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraOptions:
    """Says which LoRA files are fused into the weights."""

    lora: Annotated[
        list[str] | None,
        typer.Option(help="FILE or FILE:SCALE to fuse into the weights, before quantizing; several times."),
    ] = None
    allow_unused: UnusedOption = False

    def choices(self) -> tuple[LoraChoice, ...]:
        return tuple(LoraChoice.parse(text) for text in self.lora or ())


@lora.command()
def show(
    file: Annotated[Path, typer.Argument(help="A LoRA file.", show_default=False)],
    allow_unused: UnusedOption = False,
    json: JsonOption = False,
) -> None:
    """Show what a LoRA file is and what it changes: family, parts, methods, ranks, layers."""
    opened = read_lora(file, allow_unused=allow_unused)
    summary = summarize(opened)
    if json:
        print_json(summary)
        return
    screen.print(f"{printable_line(opened.name)}: {opened.family}", highlight=False)
    rows = [
        (
            PARTS[row["part"]],
            row["method"],
            str(row["tensors"]),
            " ".join(map(str, row["ranks"])),
            " ".join(f"{scale:g}" for scale in row["scales"]),
        )
        for row in summary["changes"]
    ]
    print_table(("part", "method", "tensors", "ranks", "scales"), rows)
    for name in opened.unused:
        screen.print(f"unused: {printable_line(name)}", highlight=False)
    screen.print(f"sha256 {opened.sha256}", highlight=False)


def summarize(opened: LoraFile) -> dict[str, Any]:
    """Return what a LoRA file is and changes, as values that JSON can hold."""
    groups: dict[tuple[str, str], list[Any]] = {}
    for change in opened.changes:
        method = "LoRA" if isinstance(change, LowRank) else change.kind
        groups.setdefault((change.place.part, method), []).append(change)
    rows = [
        {
            "part": part,
            "method": method,
            "tensors": len(changes),
            "ranks": sorted({one.rank for one in changes if isinstance(one, LowRank)}),
            "scales": [scale for scale, _ in Counter(getattr(one, "scale", 1.0) for one in changes).most_common(8)],
            "names": sorted({one.place.tensor for one in changes}),
        }
        for (part, method), changes in groups.items()
    ]
    return {
        "name": opened.name,
        "sha256": opened.sha256,
        "family": opened.family,
        "changes": rows,
        "unused": list(opened.unused),
    }


@lora.command()
def fuse(
    bundle: ExportedArgument,
    files: Annotated[list[str], typer.Argument(help="FILE or FILE:SCALE, one or several.", show_default=False)],
    fused: Annotated[Path, typer.Argument(help="The bundle to make.", show_default=False)],
    allow_unused: UnusedOption = False,
    overwrite: Annotated[bool, typer.Option(help="Replace FUSED if it is a bundle.")] = False,
    json: JsonOption = False,
) -> None:
    """Fuse LoRA files into a bundle that is not quantized: a new bundle, in which the tensors they change are new."""
    require_export("fusing LoRAs")
    choices = [LoraChoice.parse(text) for text in files]
    check_fuse(bundle, fused, choices, allow_unused=allow_unused, overwrite=overwrite)
    with working(IMPORTING):
        quiet_libraries()
        from ..export.fuse_lora import fuse_lora

    with progress_bars() as bars:
        made = fuse_lora(bundle, fused, choices, allow_unused=allow_unused, overwrite=overwrite, progress=bars)
    added = sum(record.size_bytes for record in made.manifest.weights if record.origin == "fused")
    if json:
        print_json({"bundle": made.path, "fingerprint": made.fingerprint, "added_bytes": added})
        return
    screen.print(f"{made.path}: {human_bytes(added)} of fused weights written, the rest shared with {bundle}")
