"""Makes a quantized bundle from a checkpoint in one go."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from ..engine.bundle.bundle import Bundle
from ..engine.progress import Progress, Silent
from .checkpoint import Checkpoint, CheckpointFiles, as_checkpoint
from .checks import check_recipe_goes_with
from .export import write_bundle
from .graphs.recipes import Recipe
from .machine import warn_of_machine
from .options import ExportOptions
from .quantize.calibration import Calibration, CalibrationOptions
from .quantize.checks import check_possible, default_artefact
from .quantize.quantize_bundle import quantize_bundle


def export_quantized(
    checkpoint: Checkpoint | Path | str,
    path: Path | str,
    recipe: Recipe,
    options: ExportOptions | None = None,
    *,
    files: CheckpointFiles | None = None,
    calibration: Calibration | Path | str | None = None,
    calibrating: CalibrationOptions | None = None,
    artefact: Path | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Export a checkpoint, quantize what comes of it, and open that; the bundle between them is gone at the end.

    Args:
        checkpoint: A checkpoint, or its path, as for `export_bundle`.
        path: The folder to make.
        recipe: What is quantized, and how.
        options: How the checkpoint is exported, and whether a bundle at `path` is replaced.
        files: Where those parts of a checkpoint at a path lie that are elsewhere.
        calibration: A calibration, the file of one, or a folder of samples, as for `quantize_bundle`.
        calibrating: How the bundle is calibrated on a folder.
        artefact: The file that a calibration on a folder is kept in; None for one beside `path`.
        progress: What is told of the work.

    Returns:
        The opened bundle.

    Raises:
        CheckpointError, ExportError: The checkpoint cannot be exported.
        QuantizationError: The recipe cannot be applied to it, or `path` is taken.
    """
    path, options = Path(path), options or ExportOptions()
    check_recipe_goes_with(options)
    check_possible(path, recipe, calibration, overwrite=options.overwrite)
    opened = as_checkpoint(checkpoint, files, progress)
    warn_of_machine(opened, options, recipe.formats)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        plain = replace(options, overwrite=False, input_scales=False)
        whole = write_bundle(opened, Path(folder) / "unquantized", plain, progress or Silent())
        return quantize_bundle(
            whole,
            path,
            recipe,
            calibration,
            calibrating=calibrating,
            artefact=artefact or default_artefact(path),
            overwrite=options.overwrite,
            progress=progress,
        )
