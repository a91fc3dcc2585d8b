"""Defines the command `quantize`, and the options that others share with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ..engine.bundle.bundle import Bundle
from ..engine.byte_sizes import human_bytes
from ..engine.errors import QuantizationError
from ..export.checks import check_quantize
from ..export.emulate.torch_device import TorchDevice
from ..export.environment import quiet_libraries, require_quantize
from ..export.graphs.recipes import Recipe, RecipeName, make_recipe
from ..export.quantize.calibration import CalibrationOptions
from .next_steps import how_to_run_quantized
from .options import JsonOption, UnquantizedArgument, spread
from .terminal import IMPORTING, notes, print_json, progress_bars, screen, working

PercentileOption = Annotated[
    float | None, typer.Option(help="Clip activations beyond this percentile. Default: the largest ever seen.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeOptions:
    """Says what is quantized, and on what it is calibrated."""

    calibration: Annotated[
        Path | None,
        typer.Option(help="A folder of pictures and instructions to calibrate on, or a calibration made before."),
    ] = None
    keep: Annotated[
        list[str] | None,
        typer.Option(help="Leave layers alone, such as 'single_transformer_blocks.37.*'; several times."),
    ] = None
    t5_fp8: Annotated[bool, typer.Option("--t5-fp8", help="Also keep T5's weights in FP8.")] = False

    def recipe(self, name: RecipeName | None, *, percentile: float | None = None) -> Recipe | None:
        """Make the recipe of a name with what the options change, None without a name, which takes no options."""
        if name is None:
            if self.calibration or self.keep or self.t5_fp8:
                raise QuantizationError(
                    "--calibration, --keep and --t5-fp8 go with a --precision that quantizes, such as fp8"
                )
            return None
        return make_recipe(name.value, keep=tuple(self.keep or ()), percentile=percentile, t5=self.t5_fp8)


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchOptions:
    """Says how torch runs requests."""

    steps: Annotated[int | None, typer.Option(help="Steps of a request. Default: the bundle's, 28.")] = None
    device: Annotated[TorchDevice, typer.Option(help="Where torch computes.")] = TorchDevice.AUTO


@spread
def quantize(
    bundle: UnquantizedArgument,
    quantized: Annotated[Path, typer.Argument(help="The bundle to make.", show_default=False)],
    *,
    recipe: Annotated[RecipeName, typer.Option(help="What the denoiser's blocks become.")] = RecipeName.FP8,
    options: QuantizeOptions,
    percentile: PercentileOption = None,
    torch: TorchOptions,
    overwrite: Annotated[bool, typer.Option(help="Replace QUANTIZED if it is a bundle.")] = False,
    json: JsonOption = False,
) -> None:
    """Make a quantized bundle of one that is not; calibrates first if --calibration is a folder of samples."""
    require_quantize()
    chosen = options.recipe(recipe, percentile=percentile)
    assert chosen is not None
    check_quantize(bundle, quantized, chosen, options.calibration, overwrite=overwrite)
    calibrating = CalibrationOptions(steps=torch.steps, device=torch.device)
    with working(IMPORTING):
        quiet_libraries()
        from ..export.quantize.quantize_bundle import quantize_bundle

    with progress_bars() as bars:
        made = quantize_bundle(
            bundle,
            quantized,
            chosen,
            options.calibration,
            calibrating=calibrating,
            overwrite=overwrite,
            progress=bars,
        )
    report_quantized(made, chosen, json=json)


def report_quantized(made: Bundle, recipe: Recipe, *, json: bool) -> None:
    """Print what became of a bundle."""
    graphs = {name: made.graph(name) for name in recipe.components}
    if json:
        print_json({"bundle": made.path, "fingerprint": made.fingerprint, "graphs": graphs})
        return
    for name, graph in graphs.items():
        assert graph.quantization is not None
        products = ", ".join(f"{count} in {what}" for what, count in graph.quantization.products.items())
        screen.print(f"{made.path}: {name} {human_bytes(graph.weight_bytes)}, products: {products}")
    notes.print(f"see what it costs with: kontext-trt compare BUNDLE {made.path}")
    notes.print(how_to_run_quantized(made))
