"""Goes the whole way on any machine: a checkpoint is exported, and used to edit a picture."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from ..engine.components import Precision
from ..engine.errors import ExportError
from ..engine.progress import Progress, Silent
from ..engine.system.files import is_taken
from ..runtime.kontext import Kontext
from ..runtime.outputs.result import Result
from .export import ExportOptions, export_bundle
from .tiny import write_tiny_checkpoint

PICTURE = Path(__file__).with_name("demo.png")
PROMPT = "make the house blue"
MARK = ".demo"
"""The name of an empty file in what a demo made, and another demo may replace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """Says what to show; without a `checkpoint`, a tiny random one is made."""

    checkpoint: Path | None = None
    image: Path = PICTURE
    prompt: str = PROMPT
    steps: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRun:
    """Holds what a demo made: `bundle` from `checkpoint` in `export_seconds`, and `picture` with `result`."""

    checkpoint: Path
    bundle: Path
    export_seconds: float
    picture: Path
    result: Result


def run_demo(folder: Path, demo: Demo, progress: Progress | None = None) -> DemoRun:
    """Fill `folder` with bundle/, edited.png and, if it has to be made, checkpoint/.

    What an earlier demo left there is replaced. Everything computes in float32, for which any machine has kernels.

    Raises:
        ExportError: Bundle/ or checkpoint/ is not a demo's.
    """
    start, progress = time.perf_counter(), progress or Silent()
    path, checkpoint = folder / "bundle", demo.checkpoint or folder / "checkpoint"
    for made in (path,) if demo.checkpoint else (path, checkpoint):
        _check_place(made)
    if demo.checkpoint is None:
        checkpoint.mkdir(parents=True, exist_ok=True)
        (checkpoint / MARK).touch()
        write_tiny_checkpoint(checkpoint)
    options = ExportOptions(precision=Precision.FP32, overwrite=True)
    bundle = export_bundle(checkpoint, path, options, progress=progress)
    (path / MARK).touch()
    seconds = time.perf_counter() - start
    with Kontext.open(bundle) as kontext:
        progress.start("denoising", demo.steps)
        result = kontext.edit(
            demo.image, demo.prompt, steps=demo.steps, seed=0, on_step=lambda done, of: progress.advance(1)
        )
    (picture,) = result.save(folder / "edited.png")
    return DemoRun(checkpoint=checkpoint, bundle=path, export_seconds=seconds, picture=picture, result=result)


def _check_place(path: Path) -> None:
    if is_taken(path) and not (path / MARK).is_file():
        raise ExportError(f"{path} exists and no demo made it; choose another folder: kontext-trt demo FOLDER")
