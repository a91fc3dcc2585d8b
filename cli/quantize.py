"""Commands around quantization: `calibrate`, `quantize`, `compare` and `calibration show | diff`."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ..engine.bundle.bundle import Bundle
from ..engine.byte_sizes import human_bytes
from ..engine.errors import MissingDependencyError, OptionError, QuantizationError
from ..engine.progress import Progress
from ..engine.sizes import parse_size
from ..export.emulate.torch_device import TorchDevice
from ..export.environment import quiet_libraries, require_export
from ..export.graphs.recipes import Recipe, RecipeName, make_recipe
from .terminal import JsonOption, notes, print_json, progress_bars, screen

if TYPE_CHECKING:
    from ..export.quantize.calibration import Calibration

calibration = typer.Typer(help="Look at calibrations.", no_args_is_help=True)

BundleArgument = Annotated[Path, typer.Argument(help="A bundle that is not quantized.", show_default=False)]
StepsOption = Annotated[int | None, typer.Option(help="Steps of a request. Default: the bundle's, 28.")]
PercentileOption = Annotated[
    float | None, typer.Option(help="Clip activations beyond this percentile. Default: the largest ever seen.")
]


DeviceOption = Annotated[TorchDevice, typer.Option(help="Where torch computes.")]
CalibrationOption = Annotated[
    Path | None,
    typer.Option(help="A folder of pictures and instructions to calibrate on, or a calibration made before."),
]
KeepOption = Annotated[
    list[str] | None, typer.Option(help="Leave layers alone, such as 'single_transformer_blocks.37.*'; several times.")
]
T5Option = Annotated[bool, typer.Option("--t5-fp8", help="Also keep T5's weights in FP8.")]


def calibrate(
    bundle: BundleArgument,
    samples: Annotated[
        Path, typer.Argument(help="A folder of pictures with a .csv or .txt file of instructions.", show_default=False)
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Default: BUNDLE.calibration.json.")] = None,
    steps: StepsOption = None,
    seed: Annotated[int, typer.Option(help="The first sample's seed; the next have the next.")] = 0,
    limit: Annotated[int | None, typer.Option(help="Run only so many samples.")] = None,
    device: DeviceOption = TorchDevice.AUTO,
    json: JsonOption = False,
) -> None:
    """See how large activations get: run a bundle on samples, with torch. An interrupted run is continued."""
    require_quantize()
    quiet_libraries()
    from ..export.quantize.calibrate import CalibrationOptions, calibrate_bundle

    artefact = out or default_artefact(bundle)
    options = CalibrationOptions(steps=steps, seed=seed, device=device, limit=limit)
    with progress_bars() as bars:
        made = calibrate_bundle(Bundle.open(bundle), samples, artefact, options, bars)
    if json:
        print_json({"path": artefact, "sha256": made.sha256, "samples": len(made.samples), "skipped": made.skipped})
        return
    skipped = f", {len(made.skipped)} skipped" if made.skipped else ""
    screen.print(
        f"{artefact}: {len(made.observations)} activations over {len(made.samples)} samples{skipped}, "
        f"{human_bytes(artefact.stat().st_size)}"
    )


def quantize(
    bundle: BundleArgument,
    quantized: Annotated[Path, typer.Argument(help="The bundle to make.", show_default=False)],
    recipe: Annotated[RecipeName, typer.Option(help="What the denoiser's blocks become.")] = RecipeName.FP8,
    calibration: CalibrationOption = None,
    keep: KeepOption = None,
    percentile: PercentileOption = None,
    t5_fp8: T5Option = False,
    steps: StepsOption = None,
    device: DeviceOption = TorchDevice.AUTO,
    overwrite: Annotated[bool, typer.Option(help="Replace QUANTIZED if it is a bundle.")] = False,
    json: JsonOption = False,
) -> None:
    """Make a quantized bundle of one that is not; calibrates first if --calibration is a folder of samples."""
    require_quantize()
    quiet_libraries()
    chosen = make_recipe(recipe.value, keep=tuple(keep or ()), percentile=percentile, t5=t5_fp8)
    check_request(quantized, chosen, calibration, overwrite=overwrite)
    with progress_bars() as bars:
        made = run_recipe(
            Bundle.open(bundle),
            quantized,
            chosen,
            calibration,
            artefact=default_artefact(quantized),
            steps=steps,
            device=device,
            overwrite=overwrite,
            progress=bars,
        )
    report_quantized(made, chosen, json=json)


def run_recipe(
    bundle: Bundle,
    path: Path,
    recipe: Recipe,
    calibration: Path | None,
    *,
    artefact: Path,
    steps: int | None,
    device: TorchDevice,
    overwrite: bool,
    progress: Progress,
) -> Bundle:
    """Calibrate, if it is not done, and quantize. A calibration that is made here is kept in `artefact`."""
    from ..export.quantize.quantize_bundle import check_recipe, quantize_bundle

    check_recipe(bundle, recipe)
    ranges = _calibration(bundle, recipe, calibration, artefact, steps, device, progress)
    return quantize_bundle(bundle, path, recipe, ranges, overwrite=overwrite, progress=progress)


def check_request(path: Path, recipe: Recipe, calibration: Path | None, *, overwrite: bool) -> None:
    """Refuse what cannot be done before anything takes time. Raises QuantizationError."""
    from ..export.quantize.quantize_bundle import check_place

    check_place(path, overwrite=overwrite)
    if calibration is None and recipe.calibrated:
        raise QuantizationError(
            f"the recipe {recipe.name} needs the ranges of activations: --calibration FOLDER, with pictures and "
            "instructions, or a calibration made before"
        )


def _calibration(
    bundle: Bundle,
    recipe: Recipe,
    given: Path | None,
    artefact: Path,
    steps: int | None,
    device: TorchDevice,
    progress: Progress,
) -> Calibration | None:
    from ..export.quantize.calibrate import CalibrationOptions, calibrate_bundle, check_calibration
    from ..export.quantize.calibration import Calibration

    if given is None:
        return None
    if given.is_file():
        made = Calibration.open(given)
        check_calibration(made, bundle)
        return made
    options = CalibrationOptions(steps=steps, device=device)
    return calibrate_bundle(bundle, given, artefact, options, progress)


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
    notes.print(
        f"see what it costs with: kontext-trt compare BUNDLE {made.path}\n"
        f'compile it with: kontext-trt build {made.path} --gpu "rtx 5090"'
    )


def compare(
    reference: Annotated[Path, typer.Argument(help="The bundle that is not quantized.", show_default=False)],
    other: Annotated[Path, typer.Argument(help="The quantized one.", show_default=False)],
    image: Annotated[list[Path] | None, typer.Option("--image", "-i", help="Pictures to edit.")] = None,
    prompt: Annotated[list[str] | None, typer.Option("--prompt", "-p", help="One a picture, or one for all.")] = None,
    seed: Annotated[int, typer.Option("--seed", "-s", help="The first request's; the next have the next.")] = 0,
    steps: StepsOption = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT of the output.")] = None,
    layers: Annotated[bool, typer.Option(help="Look at each layer alone: a run of the denoiser a layer.")] = True,
    budget: Annotated[float | None, typer.Option(help="Find what to keep for this SQNR of the prediction, dB.")] = None,
    worst: Annotated[int, typer.Option(help="How many layers to show.")] = 10,
    device: DeviceOption = TorchDevice.AUTO,
    json: JsonOption = False,
) -> None:
    """Say what quantization costs: pictures, latents, blocks, layers. The report is written into the second bundle."""
    require_export()
    quiet_libraries()
    from ..benchmarks.quality.compare import CompareOptions, compare_bundles
    from ..benchmarks.quality.probe import Case
    from ..benchmarks.quality.report import tables

    chosen = None if size is None else parse_size(size)
    images: list[Path | None] = list(image) if image else [None]
    cases = [
        Case(prompt=words, seed=number, image=picture, size=chosen)
        for number, (picture, words) in enumerate(_pairs(images, prompt or ["make it a watercolour"]), seed)
    ]
    options = CompareOptions(steps=steps, device=device, layers=layers, budget_db=budget)
    with progress_bars() as bars:
        made, folder = compare_bundles(Bundle.open(reference), Bundle.open(other), cases, options, bars)
    if json:
        print_json({"folder": folder, "comparison": made})
        return
    for table in tables(made, worst):
        screen.print(table)
    if made.budget_db is not None:
        flags = " ".join(f"--keep '{name}'" for name in made.keep)
        screen.print(f"for {made.budget_db:g} dB keep {len(made.keep)} of {len(made.layers)} layers: {flags}")
    screen.print(f"{folder}: comparison.json, errors.png and {len(made.cases)} pictures side by side")


def _pairs(images: Sequence[Path | None], prompts: Sequence[str]) -> list[tuple[Path | None, str]]:
    if 1 not in (len(images), len(prompts)) and len(images) != len(prompts):
        raise OptionError(f"{len(images)} pictures and {len(prompts)} prompts: give one for all, or one for each")
    count = max(len(images), len(prompts))
    return [(images[index % len(images)], prompts[index % len(prompts)]) for index in range(count)]


@calibration.command()
def show(
    file: Annotated[Path, typer.Argument(help="A calibration.", show_default=False)], json: JsonOption = False
) -> None:
    """Show what was seen of each activation."""
    from ..export.quantize.calibration import PERCENTILES, Calibration

    opened = Calibration.open(file)
    rows = {
        name: {"amax": one.amax, **{f"p{percent:g}": one.percentile(percent) for percent in PERCENTILES}}
        | {"tensors": one.tensors, "values": one.values}
        for name, one in opened.observations.items()
    }
    if json:
        print_json({"sha256": opened.sha256, "complete": opened.complete, "activations": rows})
        return
    table = Table("activation", *next(iter(rows.values()), {}), box=None)
    for name, row in rows.items():
        table.add_row(name, *(f"{value:.4g}" if isinstance(value, float) else f"{value:,}" for value in row.values()))
    screen.print(table)
    state = "" if opened.complete else ", interrupted"
    screen.print(f"{len(opened.samples)} samples of {opened.steps} steps, {len(opened.skipped)} skipped{state}")


@calibration.command()
def diff(
    before: Annotated[Path, typer.Argument(help="A calibration.", show_default=False)],
    after: Annotated[Path, typer.Argument(help="Another.", show_default=False)],
    percentile: PercentileOption = None,
    json: JsonOption = False,
) -> None:
    """Show which ranges differ between two calibrations, the largest change first."""
    from ..export.quantize.calibration import Calibration, differences

    changes = list(differences(Calibration.open(before), Calibration.open(after), percentile))
    if json:
        print_json(changes)
        return
    table = Table("activation", "before", "after", "times", box=None)
    for change in changes:
        values = ("-" if value is None else f"{value:.4g}" for value in (change.before, change.after))
        table.add_row(change.name, *values, f"{change.ratio:.3f}")
    screen.print(table if changes else "no range differs")


def default_artefact(bundle: Path) -> Path:
    """Where a calibration is kept if nobody names a place: beside the bundle, so that a failed run can be continued."""
    return bundle.with_name(f"{bundle.name}.calibration.json")


def require_quantize() -> None:
    """Raise MissingDependencyError unless what quantizing needs is installed."""
    require_export()
    if importlib.util.find_spec("modelopt") is None:
        raise MissingDependencyError(
            "quantizing needs nvidia-modelopt; install it with: pip install 'kontext-trt[quantize]'"
        )
