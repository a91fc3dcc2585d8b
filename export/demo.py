"""Goes the whole way on any machine: a checkpoint is exported, and used to edit a picture."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from ..engine.components import Precision
from ..engine.progress import Progress, Silent
from ..runtime.kontext import Kontext
from ..runtime.outputs.result import Result
from .demo_folder import MARK as MARK
from .demo_folder import PICTURE_NAME, check_demo
from .demo_folder import Demo as Demo
from .export import ExportOptions, export_bundle
from .tiny import write_tiny_checkpoint


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
        ExportError, CheckpointError, RequestError, ImageError: It cannot be shown, as `check_demo` says.
    """
    start, progress = time.perf_counter(), progress or Silent()
    check_demo(folder, demo)
    path, checkpoint = folder / "bundle", demo.checkpoint or folder / "checkpoint"
    if demo.checkpoint is None:
        checkpoint.mkdir(parents=True, exist_ok=True)
        (checkpoint / MARK).touch()
        write_tiny_checkpoint(checkpoint)
    options = ExportOptions(precision=Precision.FP32, overwrite=True)
    bundle = export_bundle(checkpoint, path, options, progress=progress)
    (path / MARK).touch()
    seconds = time.perf_counter() - start
    with Kontext.open(bundle) as kontext:
        result = kontext.run(demo.request, progress=progress)
    (picture,) = result.save(folder / PICTURE_NAME)
    return DemoRun(checkpoint=checkpoint, bundle=path, export_seconds=seconds, picture=picture, result=result)
