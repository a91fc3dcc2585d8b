"""Defines the command `bench`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Annotated

import typer

from ..benchmarks.bench.options import CHART, PAGE, PROMPT, REPORT, BenchOptions
from ..benchmarks.bench.peers import TIMEOUT_S, PeerName
from ..benchmarks.bench.records import Record, encode_lines
from ..engine.bundle.bundle import Bundle
from ..engine.byte_sizes import parse_bytes
from ..engine.errors import OptionError
from ..engine.lora.choice import LoraChoice
from ..engine.sizes import parse_size
from ..engine.system.changes import telling_changes
from ..runtime.executors.options import ExecutorName, parse_devices, read_devices
from .making import DevicesOption, ExecutorOption, GuidanceOption, StepsOption, SwapOption
from .options import ExportedArgument
from .tables import print_table
from .terminal import notes, progress_bars, screen


def bench(
    context: typer.Context,
    bundle: ExportedArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help=f"The folder for {REPORT}, {PAGE}, {CHART}.")] = Path(
        "bench"
    ),
    image: Annotated[Path | None, typer.Option("--image", "-i", help="The reference. Default: one is made.")] = None,
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What to do.")] = PROMPT,
    generate: Annotated[bool, typer.Option("--generate", help="Text to image, without a reference.")] = False,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT of the output. Default: the reference's.")] = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    batch: Annotated[int, typer.Option(help="Pictures per request.")] = 1,
    repeat: Annotated[int, typer.Option(help="Warm requests.")] = 5,
    seed: Annotated[int, typer.Option("--seed", "-s", help="Of the first picture's noise.")] = 0,
    lora: SwapOption = None,
    executor: ExecutorOption = ExecutorName.AUTO,
    devices: DevicesOption = None,
    vram: Annotated[str | None, typer.Option(help="GPU memory to use, as 24GiB.", show_default=False)] = None,
    graphs: Annotated[bool, typer.Option("--graphs/--no-graphs", help="Record CUDA graphs.")] = True,
    checkpoint: Annotated[
        Path | None, typer.Option(help="The diffusers folder of the same weights, for peers.", show_default=False)
    ] = None,
    peer: Annotated[
        list[PeerName] | None, typer.Option(help="Measure this beside it; several are allowed.", show_default=False)
    ] = None,
    peer_timeout: Annotated[float, typer.Option(min=1, help="Seconds for each peer, compiling included.")] = TIMEOUT_S,
    ceilings: Annotated[bool, typer.Option(help="Measure what the GPU reaches with plain kernels.")] = True,
    ablation: Annotated[bool, typer.Option("--ablation", help="Switch each of the engine's gains off.")] = False,
    unpruned: Annotated[
        Path | None, typer.Option(help="For --ablation: a bundle whose last block is whole.", show_default=False)
    ] = None,
    plan_only: Annotated[bool, typer.Option("--plan-only", help="Predict memory; run nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON lines for programs.")] = False,
) -> None:
    """Measure what a request costs, where its time goes, how far that is from the limit, and what else takes."""
    budget = None if vram is None else parse_bytes(vram)
    if plan_only:
        from ..benchmarks.bench.plan_only import predict

        _refuse_others(context, {"bundle", "vram", "plan_only", "json"})
        _show([predict(Bundle.open(bundle), budget)], as_json=json)
        return
    options = BenchOptions(
        bundle=bundle,
        out=out,
        executor=executor,
        devices=parse_devices(None if devices is None else read_devices(devices)),
        vram_bytes=budget,
        graphs=graphs,
        image=image,
        generate=generate,
        prompt=prompt,
        size=None if size is None else parse_size(size),
        steps=steps,
        guidance=guidance,
        batch=batch,
        seed=seed,
        repeat=repeat,
        checkpoint=checkpoint,
        peers=tuple(peer or ()),
        peer_timeout_s=peer_timeout,
        ceilings=ceilings,
        ablation=ablation,
        unpruned=unpruned,
        loras=tuple(LoraChoice.parse(text) for text in lora or ()),
    )
    from ..benchmarks.bench.bench import run_bench

    with telling_changes([out / PAGE, out / CHART, out / REPORT], notes.print), progress_bars() as bars:
        records = run_bench(options, bars)
    _show(records, as_json=json)
    notes.print(f"{out / PAGE}, {out / CHART}, {out / REPORT}")


def _refuse_others(context: typer.Context, taken: AbstractSet[str]) -> None:
    """Raise OptionError for an option that was given and would change nothing."""
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name not in taken and source is not None and source.name == "COMMANDLINE":
            raise OptionError(
                f"--plan-only is of one picture of the usual size, and runs nothing: leave out {parameter.opts[0]}"
            )


def _show(records: Sequence[Record], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(encode_lines(records).decode())
        return
    from ..benchmarks.bench.sections import headline, sections

    for line in headline(records):
        screen.print(line)
    for section in sections(records):
        screen.print()
        screen.print(section.title)
        if section.rows:
            print_table(section.columns, section.rows, right=True)
        if section.note:
            screen.print(section.note)
