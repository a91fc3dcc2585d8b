"""Refuses what cannot be calibrated or quantized, before torch is imported."""

from __future__ import annotations

from pathlib import Path

from ...engine.bundle.bundle import Bundle
from ...engine.components import Operators, Precision
from ...engine.errors import QuantizationError
from ..destination import check_destination
from ..graphs.recipes import CALIBRATED, Fp8, Recipe, reads_fp8_alone
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
        QuantizationError: The recipe quantizes nothing, a graph is for ONNX Runtime alone, or fused operators do not
            become what the recipe says.
    """
    if not recipe.components:
        raise QuantizationError(f"the recipe {recipe.name} quantizes nothing; take another with --recipe")
    for component in recipe.components:
        if bundle.graph(component).operators == Operators.ONNXRUNTIME.value:
            raise QuantizationError(
                f"the {component} of {bundle.path} has operators of ONNX Runtime's own, which are not quantized; "
                "export the checkpoint again with --operators single"
            )
    if recipe.blocks is not None and bundle.graph(CALIBRATED.name).operators == Operators.FUSED.value:
        _check_fused(bundle, recipe)


def _check_fused(bundle: Bundle, recipe: Recipe) -> None:
    """Raise QuantizationError for fused operators whose products do not become what a recipe says."""
    if not isinstance(recipe.blocks, Fp8):
        raise QuantizationError(
            f"fused operators compute in FP8, and the recipe {recipe.name} has another format; export the checkpoint "
            "with --operators single for it"
        )
    if bundle.graph(CALIBRATED.name).precision is Precision.FP16:
        raise QuantizationError(
            f"the {CALIBRATED.name} of {bundle.path} has fused operators in fp16, which are not quantized; export the "
            "checkpoint again with --operators fused --precision bf16, or fp32 for the CPU, or with --operators single"
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
