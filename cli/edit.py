"""Commands that make pictures: `edit` and `generate`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from ..engine.byte_sizes import parse_bytes
from ..engine.sizes import parse_size
from ..runtime.executors.options import ExecutorName
from ..runtime.inputs.placement import Fit
from ..runtime.kontext import Kontext
from ..runtime.outputs.result import Result, check_output
from .terminal import JsonOption, notes, print_json, progress_bars, screen

logger = logging.getLogger(__name__)

BundleArgument = Annotated[Path, typer.Argument(help="A bundle, as `export` makes it.", show_default=False)]
PromptOption = Annotated[
    list[str], typer.Option("--prompt", "-p", help="What to do. Several give several pictures.", show_default=False)
]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Where the picture goes; the suffix chooses the format.")]
SeedOption = Annotated[
    list[int] | None, typer.Option("--seed", "-s", help="Default: drawn and reported. Several are allowed.")
]
StepsOption = Annotated[int | None, typer.Option(help="Steps of the flow. Default: the bundle's, 28.")]
GuidanceOption = Annotated[float | None, typer.Option(help="Guidance strength. Default: the bundle's, 2.5.")]
SizeOption = Annotated[str | None, typer.Option(help="WIDTHxHEIGHT of the output, multiples of 16.")]
ExecutorOption = Annotated[
    ExecutorName, typer.Option(help="Who computes. Default: plans that fit this machine, else ONNX Runtime.")
]
VramOption = Annotated[
    str | None,
    typer.Option(help="GPU memory to use, as 8GiB: what does not fit is loaded for its turn.", show_default=False),
]
TrustOption = Annotated[
    bool, typer.Option("--trust", help="Run the bundle's plans whoever may write them. Plans are executable code.")
]
DebugNanOption = Annotated[bool, typer.Option("--debug-nan", help="Check every network and step for NaN. Slower.")]


def edit(
    bundle: BundleArgument,
    prompt: PromptOption,
    image: Annotated[Path, typer.Option("--image", "-i", help="The picture to edit.", show_default=False)],
    out: OutOption = Path("edited.png"),
    seed: SeedOption = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    size: SizeOption = None,
    fit: Annotated[Fit, typer.Option(help="How the picture is brought to its trained size.")] = Fit.RESIZE,
    executor: ExecutorOption = ExecutorName.AUTO,
    vram: VramOption = None,
    trust: TrustOption = False,
    debug_nan: DebugNanOption = False,
    json: JsonOption = False,
) -> None:
    """Edit a picture as the prompt says."""
    chosen = None if size is None else parse_size(size)
    check_output(out)
    with _open(bundle, executor, vram, trust=trust) as kontext, progress_bars() as bars:
        progress = _StepBar(bars)
        result = kontext.edit(
            image,
            prompt,
            steps=steps,
            guidance=guidance,
            seed=seed or None,
            size=chosen,
            fit=fit,
            on_step=progress,
            debug_nan=debug_nan,
        )
    _report(result, result.save(out), as_json=json)


def generate(
    bundle: BundleArgument,
    prompt: PromptOption,
    out: OutOption = Path("generated.png"),
    seed: SeedOption = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    size: SizeOption = None,
    executor: ExecutorOption = ExecutorName.AUTO,
    vram: VramOption = None,
    trust: TrustOption = False,
    debug_nan: DebugNanOption = False,
    json: JsonOption = False,
) -> None:
    """Make a picture from a prompt alone."""
    chosen = None if size is None else parse_size(size)
    check_output(out)
    with _open(bundle, executor, vram, trust=trust) as kontext, progress_bars() as bars:
        progress = _StepBar(bars)
        result = kontext.generate(
            prompt,
            steps=steps,
            guidance=guidance,
            seed=seed or None,
            size=chosen,
            on_step=progress,
            debug_nan=debug_nan,
        )
    _report(result, result.save(out), as_json=json)


def _open(bundle: Path, executor: ExecutorName, vram: str | None, *, trust: bool) -> Kontext:
    """Say what will lie in the GPU's memory before anything does. One request records no graph: the second would."""
    budget = None if vram is None else parse_bytes(vram)
    if trust and executor in (ExecutorName.CPU, ExecutorName.CUDA):
        logger.warning("--trust is about plans, and ONNX Runtime runs the graphs")
    kontext = Kontext.open(bundle, executor=executor.options(budget, graphs=False, trust=trust))
    for line in kontext.residency:
        notes.print(line, highlight=False)
    return kontext


class _StepBar:
    """The flow's steps as a bar that appears with the first of them."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars

    def __call__(self, done: int, of: int) -> None:
        if done == 1:
            self._bars.start("denoising", of)
        self._bars.advance(1)


def _report(result: Result, paths: tuple[Path, ...], *, as_json: bool) -> None:
    if as_json:
        pictures = [
            {"path": str(path), **result.request(output)} for path, output in zip(paths, result.outputs, strict=True)
        ]
        print_json(
            {
                "pictures": pictures,
                "milliseconds": result.milliseconds,
                "step_milliseconds": result.step_milliseconds,
            }
        )
        return
    if result.reference is not None:
        notes.print(f"reference {result.reference.describe()}")
    stages = ", ".join(f"{name} {value:,.0f}" for name, value in result.milliseconds.items() if name != "total")
    notes.print(f"{result.milliseconds['total']:,.0f} ms on {result.executor} ({stages})")
    for path, output in zip(paths, result.outputs, strict=True):
        screen.print(f"{path}  {result.size[0]}x{result.size[1]}  seed {output.seed}")
