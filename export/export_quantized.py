"""From a checkpoint to a quantized bundle in one go."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from ..engine.bundle.bundle import Bundle
from ..engine.components import Operators
from ..engine.errors import QuantizationError
from ..engine.progress import Progress
from .checkpoint import Checkpoint, CheckpointFiles
from .emulate.torch_device import TorchDevice
from .export import ExportOptions, as_checkpoint, export_bundle
from .graphs.recipes import Recipe
from .quantize.calibration import Calibration
from .quantize.quantize_bundle import check_possible, default_artefact, quantize_bundle


def export_quantized(
    checkpoint: Checkpoint | Path | str,
    path: Path | str,
    recipe: Recipe,
    options: ExportOptions | None = None,
    *,
    files: CheckpointFiles | None = None,
    calibration: Calibration | Path | str | None = None,
    steps: int | None = None,
    device: TorchDevice = TorchDevice.AUTO,
    artefact: Path | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Export a checkpoint beside `path` for the time being, quantize that to `path`, and open it.

    Arguments are those of `export_bundle` and `quantize_bundle`, and so is what is raised.
    """
    path, options = Path(path), options or ExportOptions()
    opened = as_checkpoint(checkpoint, files)
    if options.operators is Operators.ONNXRUNTIME:
        raise QuantizationError("graphs of --operators onnxruntime are not quantized; leave it out, or --precision")
    check_possible(path, recipe, calibration, overwrite=options.overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        whole = export_bundle(
            opened, Path(folder) / "unquantized", replace(options, overwrite=False), progress=progress
        )
        return quantize_bundle(
            whole,
            path,
            recipe,
            calibration,
            overwrite=options.overwrite,
            steps=steps,
            device=device,
            artefact=artefact or default_artefact(path),
            progress=progress,
        )
