"""The command `export`. Nothing heavy is imported before it runs."""

from __future__ import annotations

import tempfile
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ..engine.byte_sizes import human_bytes
from ..engine.components import Operators, Precision
from ..engine.errors import QuantizationError
from ..export.emulate.torch_device import TorchDevice
from ..export.environment import quiet_libraries, require_export
from ..export.graphs.recipes import RecipeName, make_recipe
from .quantize import (
    CalibrationOption,
    KeepOption,
    T5Option,
    check_request,
    default_artefact,
    report_quantized,
    require_quantize,
    run_recipe,
)
from .terminal import JsonOption, notes, print_json, progress_bars, screen

PartOption = Annotated[Path | None, typer.Option(help="This part's file or folder, if not in CHECKPOINT.")]


class ExportPrecision(str, Enum):
    """A type to compute everything in (`Precision`), or a recipe for the denoiser's blocks (`RecipeName`)."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    FP8 = "fp8"
    FP8_ATTENTION = "fp8-attention"
    NVFP4 = "nvfp4"
    NVFP4_SVD = "nvfp4-svd"

    @property
    def recipe(self) -> RecipeName | None:
        return RecipeName(self.value) if self.value in {recipe.value for recipe in RecipeName} else None


def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(help="A diffusers folder, a ComfyUI models folder, or a transformer file.", show_default=False),
    ],
    bundle: Annotated[Path, typer.Argument(help="The folder to make.", show_default=False)],
    precision: Annotated[
        ExportPrecision | None,
        typer.Option(
            help="What all networks compute in; default: as each is stored. fp8 and nvfp4 quantize the denoiser's "
            "blocks, the rest stays as stored."
        ),
    ] = None,
    calibration: CalibrationOption = None,
    keep: KeepOption = None,
    t5_fp8: T5Option = False,
    steps: Annotated[int | None, typer.Option(help="Steps of a calibration sample. Default: the model's, 28.")] = None,
    device: Annotated[TorchDevice, typer.Option(help="Where torch calibrates.")] = TorchDevice.AUTO,
    operators: Annotated[
        Operators,
        typer.Option(
            help="Attention and norms as single operators, decomposed for old TensorRT, or the denoiser's as ONNX "
            "Runtime's own: the fastest there, and for nothing else."
        ),
    ] = Operators.SINGLE,
    transformer: PartOption = None,
    vae: PartOption = None,
    clip: PartOption = None,
    t5: PartOption = None,
    tokenizers: Annotated[Path | None, typer.Option(help="A folder with tokenizer/ and tokenizer_2/.")] = None,
    hash_weights: Annotated[bool, typer.Option(help="Record the SHA-256 of all weights (reads every byte).")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace BUNDLE if it is a bundle.")] = False,
    json: JsonOption = False,
) -> None:
    """Trace a checkpoint's networks to ONNX and put them in a bundle. The weights stay where they are."""
    require_export()
    quiet_libraries()
    from ..export.checkpoint import CheckpointFiles, open_checkpoint
    from ..export.export import ExportOptions, export_bundle

    recipe = precision.recipe if precision else None
    plain = None if precision is None or recipe else Precision(precision.value)
    options = ExportOptions(
        precision=plain,
        fp8_as_stored=plain is None,
        operators=operators,
        hash_weights=hash_weights,
        overwrite=overwrite and recipe is None,
    )
    files = CheckpointFiles(transformer=transformer, vae=vae, clip=clip, t5=t5, tokenizers=tokenizers)
    opened = open_checkpoint(checkpoint, files)
    if recipe is None and (calibration or keep or t5_fp8):
        raise QuantizationError("--calibration, --keep and --t5-fp8 go with a --precision that quantizes, such as fp8")
    if recipe is not None and operators is Operators.ONNXRUNTIME:
        raise QuantizationError("graphs of --operators onnxruntime are not quantized; leave it out, or --precision")
    if recipe is not None:
        require_quantize()
        chosen = make_recipe(recipe.value, keep=tuple(keep or ()), t5=t5_fp8)
        check_request(bundle, chosen, calibration, overwrite=overwrite)
        bundle.parent.mkdir(parents=True, exist_ok=True)
        with progress_bars() as bars, tempfile.TemporaryDirectory(dir=bundle.parent, prefix=f".{bundle.name}.") as name:
            whole = export_bundle(opened, Path(name) / "unquantized", options, bars)
            quantized = run_recipe(
                whole,
                bundle,
                chosen,
                calibration,
                artefact=default_artefact(bundle),
                steps=steps,
                device=device,
                overwrite=overwrite,
                progress=bars,
            )
        report_quantized(quantized, chosen, json=json)
        return
    with progress_bars() as bars:
        made = export_bundle(opened, bundle, options, bars)
    manifest = made.manifest
    added = sum(record.size_bytes for record in manifest.files) + sum(
        record.size_bytes for record in manifest.weights if record.origin in ("copy", "converted")
    )
    if json:
        print_json({"bundle": str(bundle), "fingerprint": made.fingerprint, "added_bytes": added})
        return
    shared = sum(record.size_bytes for record in manifest.weights if record.origin in ("hardlink", "reflink"))
    screen.print(
        f"{bundle}: six graphs over {human_bytes(shared)} of the checkpoint's own files, {human_bytes(added)} written",
    )
    notes.print(f"edit a picture with: kontext-trt edit {bundle} --image IMAGE --prompt PROMPT")
