"""Refuses what cannot be exported, quantized, calibrated or fused before torch is imported, which takes seconds.

Each check is one that the work itself makes, too, with what is cheap to look at: places, options, manifests, headers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..engine.bundle.bundle import BUILT, Bundle
from ..engine.bundle.share import files_below
from ..engine.components import Operators
from ..engine.errors import LoraError, QuantizationError
from ..engine.lora.choice import LoraChoice
from ..engine.lora.read import check_lora
from ..engine.system.changes import try_place
from .checkpoint.places import CheckpointFiles, check_places
from .destination import check_destination
from .graphs.recipes import Recipe
from .options import ExportOptions
from .quantize.checks import check_graphs, check_possible, check_unquantized
from .quantize.samples import list_samples


def check_export(
    checkpoint: Path | str,
    path: Path,
    options: ExportOptions,
    files: CheckpointFiles,
    *,
    recipe: Recipe | None = None,
    calibration: Path | None = None,
) -> None:
    """Refuse an export, or with a recipe one that is quantized.

    Raises:
        CheckpointError: A part is nowhere, or is a file of a kind that is not read.
        ExportError, QuantizationError: `path` is taken, or the recipe does not go with the options.
        LoraError: A LoRA file cannot be used.
        BundleError: The bundle that is to be replaced has plans that are links.
    """
    if recipe is not None:
        check_recipe_goes_with(options)
        check_possible(path, recipe, calibration, overwrite=options.overwrite)
    else:
        check_destination(path, overwrite=options.overwrite)
    if path.is_dir():
        list(files_below(path, BUILT))
    check_places(checkpoint, files)
    for lora in options.loras:
        check_lora(Path(lora.path), allow_unused=options.allow_unused)


def check_recipe_goes_with(options: ExportOptions) -> None:
    """Raise QuantizationError for options whose graphs are not quantized."""
    if options.operators is Operators.ONNXRUNTIME:
        raise QuantizationError("graphs of --operators onnxruntime are not quantized; leave it out, or --precision")


def check_quantize(bundle: Path, path: Path, recipe: Recipe, calibration: Path | None, *, overwrite: bool) -> None:
    """Refuse to quantize a bundle.

    Raises:
        BundleError: There is none.
        QuantizationError: The recipe cannot be applied to it, `path` is taken, or there is no calibration.
    """
    opened = Bundle.open(bundle)
    check_possible(path, recipe, calibration, overwrite=overwrite)
    check_graphs(opened, recipe)


def check_calibrate(bundle: Path, samples: Path, artefact: Path) -> None:
    """Refuse to calibrate a bundle.

    Raises:
        BundleError: There is none.
        QuantizationError: It is quantized, the folder lists nothing, or no file can be made at `artefact`.
    """
    check_unquantized(Bundle.open(bundle))
    list_samples(samples)
    try:
        try_place(artefact)
    except (OSError, ValueError) as error:
        raise QuantizationError(f"{artefact} cannot be written: {error}; choose another place with --out") from error


def check_fuse(
    bundle: Path, path: Path, loras: Sequence[LoraChoice], *, allow_unused: bool = False, overwrite: bool = False
) -> None:
    """Refuse to fuse LoRA files into a bundle.

    Raises:
        BundleError: There is none.
        ExportError: `path` is taken.
        LoraError: A file cannot be used, or there is none.
    """
    Bundle.open(bundle)
    check_destination(path, overwrite=overwrite)
    if not loras:
        raise LoraError("there is no LoRA to fuse; name at least one file")
    for lora in loras:
        check_lora(Path(lora.path), allow_unused=allow_unused)
