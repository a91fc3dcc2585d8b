"""Defines the command `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..engine.system.changes import telling_changes
from ..export.demo_folder import PICTURE_NAME, Demo, check_demo
from ..export.environment import quiet_libraries, require_demo
from .options import JsonOption
from .terminal import IMPORTING, notes, print_json, progress_bars, screen, working


def demo(
    folder: Annotated[Path, typer.Argument(help="Where everything goes.")] = Path("demo"),
    checkpoint: Annotated[Path | None, typer.Option(help="Default: a tiny random one is made.")] = None,
    image: Annotated[Path | None, typer.Option("--image", "-i", help="The picture to edit.")] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="What to do with it.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the flow. Default: 8.")] = None,
    json: JsonOption = False,
) -> None:
    """Export a checkpoint and edit a picture with it: every part of the road, in a minute."""
    require_demo()
    given = {"checkpoint": checkpoint, "image": image, "prompt": prompt, "steps": steps}
    asked = Demo(**{name: value for name, value in given.items() if value is not None})
    check_demo(folder, asked)
    with working(IMPORTING):
        quiet_libraries()
        from ..export.demo import run_demo

    with telling_changes([folder / PICTURE_NAME], notes.print), progress_bars(keep=False) as bars:
        made = run_demo(folder, asked, bars)
    notes.print(f"exported {made.checkpoint} to {made.bundle} in {made.export_seconds:.0f} s")
    assert made.result.reference is not None
    notes.print(f"reference {made.result.reference.describe()}")
    if checkpoint is None:
        notes.print(
            "This checkpoint is random: it has every layer of FLUX.1 Kontext and none of its knowledge, so the picture "
            "is a pattern."
        )
    notes.print(
        "A real checkpoint takes the same two commands:\n"
        "  kontext-trt export CHECKPOINT BUNDLE\n"
        f'  kontext-trt edit BUNDLE --image {asked.image} --prompt "{asked.prompt}"',
    )
    if json:
        print_json(
            {
                "checkpoint": made.checkpoint,
                "bundle_path": made.bundle,
                "path": made.picture,
                "export_seconds": made.export_seconds,
                **made.result.request(made.result.outputs[0]),
                "milliseconds": made.result.milliseconds,
            }
        )
        return
    width, height = made.result.size
    screen.print(f"{made.picture}  {width}x{height}  seed {made.result.seed}")
