"""Defines the command `compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..benchmarks.environment import require_compare
from ..benchmarks.quality.compare_options import CompareCase, CompareOptions, check_comparison
from ..engine.bundle.bundle import Bundle
from ..engine.errors import OptionError
from ..engine.printable import counted
from ..engine.sizes import parse_size
from ..export.environment import quiet_libraries
from ..runtime.executors.options import Device, ExecutorName
from .making import executor_name
from .options import JsonOption, spread
from .quantize import TorchOptions
from .tables import print_table
from .terminal import IMPORTING, print_json, progress_bars, screen, working


@spread
def compare(
    reference: Annotated[Path, typer.Argument(help="The bundle that is not quantized.", show_default=False)],
    other: Annotated[Path, typer.Argument(help="The quantized one.", show_default=False)],
    *,
    image: Annotated[list[Path] | None, typer.Option("--image", "-i", help="Pictures to edit.")] = None,
    prompt: Annotated[list[str] | None, typer.Option("--prompt", "-p", help="One per picture, or one for all.")] = None,
    seed: Annotated[int, typer.Option("--seed", "-s", help="The first request's; the next have the next.")] = 0,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT of the output.")] = None,
    layers: Annotated[bool, typer.Option(help="Look at each layer alone: a run of the denoiser per layer.")] = True,
    budget: Annotated[float | None, typer.Option(help="Find what to keep for this SQNR of the prediction, dB.")] = None,
    executor: Annotated[
        ExecutorName | None,
        typer.Option(
            help="Also run OTHER for real, if its operators are fused.",
            parser=executor_name,
            metavar="<cpu|cuda>",
            show_default=False,
        ),
    ] = None,
    worst: Annotated[int, typer.Option(help="How many layers to show.")] = 10,
    torch: TorchOptions,
    json: JsonOption = False,
) -> None:
    """Say what quantization costs: pictures, latents, blocks, layers. The report is written into the second bundle."""
    require_compare()
    if executor is not None and executor not in (ExecutorName.CPU, ExecutorName.CUDA):
        raise OptionError(f"--executor is cpu or cuda, not {executor.value}: ONNX Runtime runs fused operators")
    real = None if executor is None else Device(executor.value)
    chosen = None if size is None else parse_size(size)
    images: list[Path | None] = list(image) if image else [None]
    cases = [
        CompareCase(prompt=words, seed=number, image=picture, size=chosen)
        for number, (picture, words) in enumerate(_pairs(images, prompt or ["make it a watercolour"]), seed)
    ]
    options = CompareOptions(steps=torch.steps, device=torch.device, layers=layers, budget_db=budget, real=real)
    bundles = Bundle.open(reference), Bundle.open(other)
    check_comparison(*bundles, cases, options)
    with working(IMPORTING):
        quiet_libraries()
        from ..benchmarks.quality.compare import compare_bundles
        from ..benchmarks.quality.report import budget_advice, tables

    with progress_bars() as bars:
        made, folder = compare_bundles(*bundles, cases, options, bars)
    if json:
        print_json({"folder": folder, "comparison": made})
        return
    for columns, rows in tables(made, worst):
        print_table(columns, rows)
    if advice := budget_advice(made):
        screen.print(advice)
    screen.print(f"{folder}: comparison.json, errors.png and {counted(len(made.cases), 'picture')} side by side")


def _pairs(images: Sequence[Path | None], prompts: Sequence[str]) -> list[tuple[Path | None, str]]:
    if 1 not in (len(images), len(prompts)) and len(images) != len(prompts):
        raise OptionError(f"{len(images)} pictures and {len(prompts)} prompts: give one for all, or one for each")
    count = max(len(images), len(prompts))
    return [(images[index % len(images)], prompts[index % len(prompts)]) for index in range(count)]
