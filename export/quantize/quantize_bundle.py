"""Makes a quantized bundle from a bundle: checks what is asked for, and finds the ranges of activations."""

from __future__ import annotations

from pathlib import Path

from ...engine.bundle.bundle import Bundle
from ...engine.errors import QuantizationError
from ...engine.progress import Progress, Silent
from ...engine.system.files import atomic_folder
from ..emulate.bundle_modules import read_model, reading
from ..graphs.fused_nodes import linear_names
from ..graphs.recipes import Recipe, matches
from .calibration import Calibration, CalibrationOptions
from .checks import check_graphs, check_possible, default_artefact
from .write_quantized import QuantizedBundleWriter


def quantize_bundle(
    bundle: Bundle | Path | str,
    path: Path | str,
    recipe: Recipe,
    calibration: Calibration | Path | str | None = None,
    *,
    calibrating: CalibrationOptions | None = None,
    artefact: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Write a quantized bundle, whole or not at all, and open it; the old one stays, and its files are shared.

    Args:
        bundle: The bundle that is not quantized, or its path.
        path: The folder to make.
        recipe: What is quantized, and how.
        calibration: A calibration, the file of one, or a folder of samples that the bundle is calibrated on first. It
            may be left out for a recipe that quantizes weights alone.
        calibrating: How the bundle is calibrated on a folder.
        artefact: The file that a calibration on a folder is kept in, and continued from if it is interrupted; None for
            one beside `path`.
        overwrite: True to replace a bundle at `path`.
        progress: What is told of the work.

    Returns:
        The opened bundle.

    Raises:
        QuantizationError: The recipe quantizes nothing, the bundle is quantized already, a range is missing or 0, or
            `path` is taken.
    """
    bundle, path, progress = Bundle.of(bundle), Path(path), progress or Silent()
    check_possible(path, recipe, calibration, overwrite=overwrite)
    check_recipe(bundle, recipe)
    if isinstance(calibration, (str, Path)):
        kept = artefact or default_artefact(path)
        calibration = _calibration(bundle, Path(calibration), kept, calibrating, progress)
    with atomic_folder(path, replace=overwrite) as folder:
        QuantizedBundleWriter(bundle, folder, recipe, calibration, progress).write()
    return Bundle.open(path)


def _calibration(
    bundle: Bundle, given: Path, artefact: Path, options: CalibrationOptions | None, progress: Progress
) -> Calibration:
    from .calibrate import calibrate_bundle, check_calibration  # needs modelopt

    if given.is_file():
        made = Calibration.open(given)
        check_calibration(made, bundle)
        return made
    return calibrate_bundle(bundle, given, artefact, options, progress)


def check_recipe(bundle: Bundle, recipe: Recipe) -> None:
    """Check that a recipe fits a bundle before anything is written.

    Raises:
        QuantizationError: The recipe quantizes nothing, a graph is for ONNX Runtime alone, or a pattern of the
            recipe matches no layer.
    """
    check_graphs(bundle, recipe)
    names = [name for component in recipe.components for name in _layer_names(bundle, component)]
    for pattern in recipe.keep:
        if not any(matches(pattern, name) for name in names):
            raise QuantizationError(f"--keep {pattern} matches no layer; they have names like {names[0]}")


def _layer_names(bundle: Bundle, component: str) -> list[str]:
    """Return the names of a component's linear layers. Raises BundleError for a graph that is none of ours."""
    model = read_model(bundle, component)
    with reading(bundle.path / bundle.graph(component).path):
        return [f"{component}.{name}" for name in linear_names(model)]
