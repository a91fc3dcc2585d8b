"""Defines the command `export`. Nothing heavy is imported before it runs."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ..engine.bundle.bundle import Bundle
from ..engine.byte_sizes import human_bytes
from ..engine.components import Operators, Precision
from ..export.checkpoint.places import CheckpointFiles
from ..export.checks import check_export
from ..export.emulate.torch_device import TorchDevice
from ..export.environment import quiet_libraries, require_export, require_quantize
from ..export.graphs.recipes import RecipeName
from ..export.options import ExportOptions
from ..export.quantize.calibration import CalibrationOptions
from .lora import LoraOptions
from .next_steps import how_to_edit
from .options import JsonOption, spread
from .quantize import QuantizeOptions, report_quantized
from .terminal import IMPORTING, notes, print_json, progress_bars, screen, working

PartOption = Annotated[
    str | None,
    typer.Option(help="This part's file, folder or hub place, if not in CHECKPOINT.", metavar="PLACE"),
]


class ExportPrecision(str, Enum):
    """Names a type to compute everything in (`Precision`), or a recipe for the denoiser's blocks (`RecipeName`)."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class PartOptions:
    """Says where the parts of a checkpoint lie, as in `CheckpointFiles`."""

    transformer: PartOption = None
    vae: PartOption = None
    clip: PartOption = None
    t5: PartOption = None
    tokenizers: Annotated[
        str | None,
        typer.Option(
            help="A folder or repository with tokenizer/ and tokenizer_2/. Default: CHECKPOINT's, else the hub's.",
            metavar="PLACE",
        ),
    ] = None
    variant: Annotated[
        str | None, typer.Option(help="The variant of weights, such as fp16, where a folder has it.")
    ] = None
    reference_weights: Annotated[
        str | None,
        typer.Option(help="The transformer before it became NVFP4, to find how its weights lie.", metavar="PLACE"),
    ] = None
    trust_layout: Annotated[
        str | None,
        typer.Option(
            help="How NVFP4 weights lie, untested: swizzled-high (BFL, ComfyUI), linear-low (ModelOpt, diffusers), "
            "swizzled-low or linear-high."
        ),
    ] = None


@spread
def export(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="A diffusers or ComfyUI folder, a transformer's file, or on the Hugging Face hub OWNER/NAME or "
            "OWNER/NAME:FILE.",
            show_default=False,
        ),
    ],
    bundle: Annotated[Path, typer.Argument(help="The folder to make.", show_default=False)],
    *,
    precision: Annotated[
        ExportPrecision | None,
        typer.Option(
            help="What all networks compute in; default: as each is stored. fp8 and nvfp4 quantize the denoiser's "
            "blocks, the rest stays as stored."
        ),
    ] = None,
    quantized: QuantizeOptions,
    steps: Annotated[int | None, typer.Option(help="Steps of a calibration sample. Default: the model's, 28.")] = None,
    device: Annotated[TorchDevice, typer.Option(help="Where torch calibrates.")] = TorchDevice.AUTO,
    operators: Annotated[
        Operators,
        typer.Option(
            help="Attention and norms as single operators, decomposed for old TensorRT, the denoiser's as ONNX "
            "Runtime's own, or fused: the fastest on CUDA, in FP8 too, and run everywhere."
        ),
    ] = Operators.SINGLE,
    step_cache: Annotated[
        bool, typer.Option("--step-cache", help="Let requests cache steps, as --step-mask says. It takes memory.")
    ] = False,
    lora_rank: Annotated[
        int, typer.Option(help="The rank of branches that LoRAs are swapped into while it runs; 0 for none.")
    ] = 0,
    parts: PartOptions,
    hash_weights: Annotated[bool, typer.Option(help="Record the SHA-256 of all weights (reads every byte).")] = False,
    input_scales: Annotated[
        bool,
        typer.Option(
            help="Multiply in FP8 or NVFP4 where the checkpoint has such weights and scales of inputs. Without "
            "--precision only."
        ),
    ] = True,
    copy: Annotated[
        bool,
        typer.Option(help="Copy the weights. Without, they are shared, and the checkpoint must not be written into."),
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace BUNDLE if it is a bundle.")] = False,
    loras: LoraOptions,
    json: JsonOption = False,
) -> None:
    """Trace a checkpoint's networks to ONNX and put them in a bundle. The weights stay where they are."""
    chosen_loras, recipe = loras.choices(), precision.recipe if precision else None
    if recipe is None:
        require_export()
    else:
        require_quantize()
    plain = None if precision is None or recipe else Precision(precision.value)
    options = ExportOptions(
        precision=plain,
        fp8_as_stored=plain is None,
        operators=operators,
        step_cache=step_cache,
        lora_rank=lora_rank,
        input_scales=input_scales,
        hash_weights=hash_weights,
        copy=copy,
        overwrite=overwrite,
        loras=chosen_loras,
        allow_unused=loras.allow_unused,
    )
    files = CheckpointFiles(**{field.name: getattr(parts, field.name) for field in fields(parts)})
    chosen = quantized.recipe(recipe)
    check_export(checkpoint, bundle, options, files, recipe=chosen, calibration=quantized.calibration)
    calibrating = CalibrationOptions(steps=steps, device=device)
    with working(IMPORTING):
        quiet_libraries()
        from ..export.export import export_bundle
        from ..export.export_quantized import export_quantized
    logging.getLogger("kontext_trt.export.checkpoint").setLevel(logging.INFO)  # licences, and what is fetched unasked
    if chosen is None:
        with progress_bars() as bars:
            made = export_bundle(checkpoint, bundle, options, files=files, progress=bars)
        _report(made, json=json)
        return
    with progress_bars() as bars:
        made = export_quantized(
            checkpoint,
            bundle,
            chosen,
            options,
            files=files,
            calibration=quantized.calibration,
            calibrating=calibrating,
            progress=bars,
        )
    report_quantized(made, chosen, json=json)


def _report(made: Bundle, *, json: bool) -> None:
    manifest = made.manifest
    added = sum(record.size_bytes for record in manifest.files) + sum(
        record.size_bytes for record in manifest.weights if record.origin in ("copy", "converted")
    )
    if json:
        print_json({"bundle": made.path, "fingerprint": made.fingerprint, "added_bytes": added})
        return
    shared = sum(record.size_bytes for record in manifest.weights if record.origin in ("hardlink", "reflink"))
    over = f" over {human_bytes(shared)} of the checkpoint's own files" if shared else ""
    screen.print(f"{made.path}: {len(made.components)} graphs{over}, {human_bytes(added)} written")
    notes.print(how_to_edit(made))
