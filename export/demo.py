"""The whole road on any machine: a tiny checkpoint is made, exported, and used to edit a picture."""

from __future__ import annotations

import time
from pathlib import Path

from ..engine.terminal import notes, progress_bars, screen
from ..runtime.kontext import Kontext
from .checkpoint import open_checkpoint
from .export import ExportOptions, export_bundle
from .tiny import write_tiny_checkpoint

PICTURE = Path(__file__).with_name("demo.png")
PROMPT = "make the house blue"


def run_demo(folder: Path, steps: int) -> None:
    """Fill `folder` with checkpoint/, bundle/ and edited.png; what is there from an earlier demo is replaced."""
    start = time.perf_counter()
    write_tiny_checkpoint(folder / "checkpoint")
    with progress_bars() as bars:
        bundle = export_bundle(
            open_checkpoint(folder / "checkpoint"), folder / "bundle", ExportOptions(overwrite=True), bars
        )
    notes.print(f"exported {folder / 'checkpoint'} to {folder / 'bundle'} in {time.perf_counter() - start:.0f} s")
    with Kontext.open(bundle) as kontext, progress_bars() as bars:
        bars.start("denoising", steps)
        result = kontext.edit(PICTURE, PROMPT, steps=steps, seed=0, on_step=lambda done, of: bars.advance(1))
    assert result.reference is not None
    notes.print(f"reference {result.reference.describe()}")
    (path,) = result.save(folder / "edited.png")
    notes.print(
        "The demo's checkpoint is random: it has every layer of FLUX.1 Kontext and none of its knowledge, so the "
        "picture is a pattern. A real checkpoint takes the same two commands:\n"
        f"  kontext-trt export CHECKPOINT BUNDLE\n"
        f'  kontext-trt edit BUNDLE --image {PICTURE} --prompt "{PROMPT}"',
    )
    screen.print(f"{path}  {result.size[0]}x{result.size[1]}  seed {result.seed}")
