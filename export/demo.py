"""The whole road on any machine: a checkpoint is exported, and used to edit a picture."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from ..engine.components import Precision
from ..engine.errors import ExportError
from ..engine.files import is_taken
from ..engine.terminal import notes, progress_bars, screen
from ..runtime.kontext import Kontext
from .checkpoint import open_checkpoint
from .export import ExportOptions, export_bundle
from .tiny import write_tiny_checkpoint

PICTURE = Path(__file__).with_name("demo.png")
PROMPT = "make the house blue"
MARK = ".demo"
"""An empty file in what a demo made, and another demo may replace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """What to show. Without a `checkpoint`, a tiny random one is made."""

    checkpoint: Path | None = None
    image: Path = PICTURE
    prompt: str = PROMPT
    steps: int = 8


def run_demo(folder: Path, demo: Demo) -> None:
    """Fill `folder` with bundle/, edited.png and, if it has to be made, checkpoint/; what an earlier demo left there is
    replaced. Everything computes in float32, for which any machine has kernels.

    Raises ExportError if bundle/ or checkpoint/ is not a demo's.
    """
    start = time.perf_counter()
    path, checkpoint = folder / "bundle", demo.checkpoint or folder / "checkpoint"
    for made in (path,) if demo.checkpoint else (path, checkpoint):
        _check_place(made)
    if demo.checkpoint is None:
        checkpoint.mkdir(parents=True, exist_ok=True)
        (checkpoint / MARK).touch()
        write_tiny_checkpoint(checkpoint)
    with progress_bars() as bars:
        options = ExportOptions(precision=Precision.FP32, overwrite=True)
        bundle = export_bundle(open_checkpoint(checkpoint), path, options, bars)
    (path / MARK).touch()
    notes.print(f"exported {checkpoint} to {path} in {time.perf_counter() - start:.0f} s")
    with Kontext.open(bundle) as kontext, progress_bars() as bars:
        bars.start("denoising", demo.steps)
        result = kontext.edit(
            demo.image, demo.prompt, steps=demo.steps, seed=0, on_step=lambda done, of: bars.advance(1)
        )
    assert result.reference is not None
    notes.print(f"reference {result.reference.describe()}")
    (path,) = result.save(folder / "edited.png")
    if demo.checkpoint is None:
        notes.print(
            "This checkpoint is random: it has every layer of FLUX.1 Kontext and none of its knowledge, so the picture "
            "is a pattern."
        )
    notes.print(
        "A real checkpoint takes the same two commands:\n"
        "  kontext-trt export CHECKPOINT BUNDLE\n"
        f'  kontext-trt edit BUNDLE --image {demo.image} --prompt "{demo.prompt}"',
    )
    screen.print(f"{path}  {result.size[0]}x{result.size[1]}  seed {result.seed}")


def _check_place(path: Path) -> None:
    if is_taken(path) and not (path / MARK).is_file():
        raise ExportError(f"{path} exists and no demo made it; choose another folder: kontext-trt demo FOLDER")
