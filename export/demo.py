"""Goes the whole way on any machine: a checkpoint is exported, and used to edit a picture."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from ..engine.bundle.bundle import MANIFEST
from ..engine.components import Precision
from ..engine.errors import ExportError
from ..engine.progress import Progress, Silent
from ..engine.system.changes import is_same_file
from ..engine.system.files import is_taken
from ..runtime.kontext import Kontext
from ..runtime.outputs.result import Result
from .export import ExportOptions, export_bundle
from .tiny import write_tiny_checkpoint

PICTURE = Path(__file__).with_name("demo.png")
PROMPT = "make the house blue"
PICTURE_NAME = "edited.png"
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
        ExportError: Bundle/, checkpoint/ or edited.png is not a demo's, or is the picture to edit, or `folder` is itself
            a bundle or a checkpoint.
    """
    start, progress = time.perf_counter(), progress or Silent()
    _check_folder(folder, demo.image)
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
    (picture,) = result.save(folder / PICTURE_NAME)
    return DemoRun(checkpoint=checkpoint, bundle=path, export_seconds=seconds, picture=picture, result=result)


def _check_folder(folder: Path, image: Path) -> None:
    """Raise ExportError unless a demo may put its files into a folder, which holds nothing that they would replace."""
    for mark, what in ((MANIFEST, "a bundle"), ("model_index.json", "a checkpoint"), ("config.json", "a network")):
        if (folder / mark).exists():
            raise ExportError(f"{folder} is {what}; name a folder that a demo may fill: kontext-trt demo FOLDER")
    if (folder / PICTURE_NAME).exists() and not (folder / "bundle" / MARK).is_file():
        raise ExportError(
            f"{folder / PICTURE_NAME} exists and no demo made it; choose another folder: kontext-trt demo FOLDER"
        )
    if is_same_file(folder / PICTURE_NAME, image):
        raise ExportError(f"{image} is to be edited and would be replaced; choose another folder for what is made")


def _check_place(path: Path) -> None:
    if is_taken(path) and not (path / MARK).is_file():
        raise ExportError(f"{path} exists and no demo made it; choose another folder: kontext-trt demo FOLDER")
