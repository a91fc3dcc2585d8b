"""Defines the commands that make pictures: `edit` and `generate`."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ..engine.byte_sizes import parse_bytes
from ..engine.sizes import parse_size
from ..runtime.executors.options import ExecutorName
from ..runtime.inputs.placement import Fit
from ..runtime.inputs.request import Request, Sampling
from ..runtime.kontext import Kontext
from ..runtime.outputs.result import Result, check_output
from .options import ExportedArgument, JsonOption, spread
from .terminal import Bars, notes, print_json, progress_bars, screen

logger = logging.getLogger(__name__)

PromptOption = Annotated[
    list[str], typer.Option("--prompt", "-p", help="What to do. Several give several pictures.", show_default=False)
]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Where the picture goes; the suffix chooses the format.")]
StepsOption = Annotated[int | None, typer.Option(help="Steps of the flow. Default: the bundle's, 28.")]
GuidanceOption = Annotated[float | None, typer.Option(help="Guidance strength. Default: the bundle's, 2.5.")]
ExecutorOption = Annotated[
    ExecutorName, typer.Option(help="Who computes. Default: plans that fit this machine, else ONNX Runtime.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureOptions:
    """Says what the pictures become."""

    seed: Annotated[
        list[int] | None, typer.Option("--seed", "-s", help="Default: drawn and reported. Several are allowed.")
    ] = None
    steps: StepsOption = None
    guidance: GuidanceOption = None
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT of the output, multiples of 16.")] = None
    debug_nan: Annotated[bool, typer.Option("--debug-nan", help="Check every network and step for NaN. Slower.")] = (
        False
    )

    def sampling(self) -> Sampling:
        return Sampling(
            seed=self.seed or None,
            steps=self.steps,
            guidance=self.guidance,
            size=None if self.size is None else parse_size(self.size),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Says who computes, and in how much memory."""

    executor: ExecutorOption = ExecutorName.AUTO
    vram: Annotated[
        str | None,
        typer.Option(help="GPU memory to use, as 24GiB: what does not fit is loaded for its turn.", show_default=False),
    ] = None
    store: Annotated[Path | None, typer.Option(help="A folder of plans that is not the bundle's own.")] = None
    trust: Annotated[
        bool, typer.Option("--trust", help="Run plans that you did not sign. They are executable code.")
    ] = False


@spread
def edit(
    bundle: ExportedArgument,
    prompt: PromptOption,
    image: Annotated[Path, typer.Option("--image", "-i", help="The picture to edit.", show_default=False)],
    *,
    out: OutOption = Path("edited.png"),
    picture: PictureOptions,
    fit: Annotated[Fit, typer.Option(help="How the picture is brought to its trained size.")] = Fit.RESIZE,
    run: RunOptions,
    json: JsonOption = False,
) -> None:
    """Edit a picture as the prompt says."""
    request = Request(prompt=prompt, image=image, sampling=picture.sampling(), fit=fit)
    _make(bundle, request, run, out, debug_nan=picture.debug_nan, as_json=json)


@spread
def generate(
    bundle: ExportedArgument,
    prompt: PromptOption,
    *,
    out: OutOption = Path("generated.png"),
    picture: PictureOptions,
    run: RunOptions,
    json: JsonOption = False,
) -> None:
    """Make a picture from a prompt alone."""
    request = Request(prompt=prompt, sampling=picture.sampling())
    _make(bundle, request, run, out, debug_nan=picture.debug_nan, as_json=json)


def _make(bundle: Path, request: Request, run: RunOptions, out: Path, *, debug_nan: bool, as_json: bool) -> None:
    """Make a request's pictures, and say what will lie in the GPU's memory before anything does.

    One request records no graph: the second would.
    """
    check_output(out)
    budget = None if run.vram is None else parse_bytes(run.vram)
    if run.trust and run.executor in (ExecutorName.CPU, ExecutorName.CUDA):
        logger.warning("--trust is about plans, and ONNX Runtime runs the graphs")
    executor = run.executor.options(budget, graphs=False, plans=run.store, trust=run.trust)
    with Kontext.open(bundle, executor=executor) as kontext:
        for line in kontext.residency:
            notes.print(line, highlight=False)
        with progress_bars() as bars:
            result = kontext.run(request, on_step=_StepBar(bars), debug_nan=debug_nan)
    _report(result, result.save(out), as_json=as_json)


class _StepBar:
    """Shows the flow's steps as a bar that appears with the first of them."""

    def __init__(self, bars: Bars) -> None:
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
