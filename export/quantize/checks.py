"""Refuses what cannot be calibrated or quantized, before torch is imported."""

from __future__ import annotations

from pathlib import Path

from ...engine.bundle.bundle import Bundle
from ...engine.components import Operators
from ...engine.errors import QuantizationError
from ..destination import check_destination
from ..graphs.recipes import CALIBRATED, Recipe, reads_fp8_alone
from .calibration import Calibration
from .samples import list_samples


def check_possible(path: Path, recipe: Recipe, calibration: object, *, overwrite: bool) -> None:
    """Refuse what cannot be done whatever the bundle is.

    Args:
        path: The folder to make.
        recipe: What is quantized, and how.
        calibration: A calibration, or the path of one or of a folder of samples; None without.
        overwrite: True if a bundle at `path` may be replaced.

    Raises:
        QuantizationError: `path` is taken, a recipe that needs a calibration has none, or there is none at its path.
    """
    check_destination(path, overwrite=overwrite, error=QuantizationError)
    if calibration is None and recipe.calibrated:
        raise QuantizationError(
            f"the recipe {recipe.name} needs the ranges of activations: --calibration FOLDER, with pictures and "
            "instructions, or a calibration made before"
        )
    if isinstance(calibration, (str, Path)):
        _check_source(Path(calibration))


def _check_source(path: Path) -> None:
    """Raise QuantizationError unless a path is a calibration's, or a folder that lists samples."""
    if path.is_file():
        Calibration.open(path)
    else:
        list_samples(path)


def check_graphs(bundle: Bundle, recipe: Recipe) -> None:
    """Refuse a recipe for a bundle by what the bundle's manifest says.

    Raises:
        QuantizationError: The recipe quantizes nothing, or a graph is for ONNX Runtime alone.
    """
    if not recipe.components:
        raise QuantizationError(f"the recipe {recipe.name} quantizes nothing; take another with --recipe")
    for component in recipe.components:
        if bundle.graph(component).operators == Operators.ONNXRUNTIME.value:
            raise QuantizationError(
                f"the {component} of {bundle.path} has operators of ONNX Runtime's own, which are not quantized; "
                "export the checkpoint again with --operators single"
            )


def check_unquantized(bundle: Bundle) -> None:
    """Raise QuantizationError for a bundle that is quantized already: the ranges of activations are not its own."""
    if not reads_fp8_alone(bundle.graph(CALIBRATED).quantization):
        raise QuantizationError(
            f"{bundle.path} is quantized already; calibrate the bundle that it was made from, or export the checkpoint "
            "with --no-input-scales"
        )


def default_artefact(bundle: Path) -> Path:
    """Return where a calibration is kept if nobody names a place.

    It is beside the bundle, so that a failed run can be continued.
    """
    return bundle.with_name(f"{bundle.name}.calibration.json")
