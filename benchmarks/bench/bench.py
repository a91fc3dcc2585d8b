"""Runs a whole benchmark: ours, peers beside it, the GPU's ceilings, how far from them, and what each gain is worth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ...engine.bundle.bundle import Bundle
from ...engine.errors import KontextError, RequestError
from ...engine.plans.targets import capability_of
from ...engine.progress import Progress, Silent
from ...engine.sizes import Size, squarest
from ...engine.system.files import atomic_file
from ...engine.system.gpus import find_gpus
from ...runtime.inputs.pictures import read_picture
from ...runtime.inputs.placement import Fit, nearest_size, place
from ..environment import require_report
from .ablation import ablate
from .agreement import agreement
from .ceilings import measure_ceilings
from .engine_process import ENGINE, EngineJob, run_engine
from .machine import this_machine
from .nvml import load_nvml
from .options import CHART, PAGE, REFERENCE, REPORT, BenchOptions
from .peers import PeerName, measure_peer, picture_path
from .plan_only import ALL_RESIDENT, check, predict, within
from .records import Case, Ceilings, EngineRun, Record, Unmeasured, encode_lines
from .request import request_of
from .roofline import hoisting, roofline
from .sections import comparable, headline
from .unpruned import check_unpruned


def run_bench(options: BenchOptions, progress: Progress | None = None) -> list[Record]:
    """Measure, and write the report into `options.out`.

    It is there after each part, should a later one be cut off. Parts that cannot be had here, such as a peer that is
    not installed, are Unmeasured among the records.

    Raises:
        MissingDependencyError: No report can be made.
        RequestError: The options ask for what no request or report may be.
        BundleError: A bundle cannot be opened, or `unpruned` does not belong to it.
        ExecutorError: Our own part fails.
    """
    require_report()
    progress = progress or Silent()
    bundle = Bundle.open(options.bundle)
    unpruned = None if options.unpruned is None else Bundle.open(options.unpruned)
    if unpruned is not None:
        check_unpruned(bundle, unpruned)
    if options.checkpoint is not None and not options.checkpoint.is_dir():
        raise RequestError(f"checkpoint {options.checkpoint} is not a folder; peers load a diffusers folder")
    if options.out.exists() and not options.out.is_dir():
        raise RequestError(f"{options.out} is a file; the report needs a folder")
    case, picture = make_case(bundle, options)
    options.out.mkdir(parents=True, exist_ok=True)
    image = None if picture is None else options.out / REFERENCE
    if picture is not None and image is not None:
        picture.save(image)
    records: list[Record] = [this_machine(), case]

    def add(task: str, make: Callable[[], Record]) -> Record:
        progress.start(task, 1)
        records.append(make())
        progress.advance(1)
        write_report(records, options.out)
        return records[-1]

    if find_gpus()[0] and load_nvml() is None:
        reason = "nvidia-ml-py is not installed, or the driver does not answer it"
        records.append(Unmeasured(engine="clocks, power and peak memory", reason=reason))
    ours = add(ENGINE, lambda: _ours(options, case, image))
    assert isinstance(ours, EngineRun)
    for peer in options.peers:
        found = add(peer.value, lambda peer=peer: _peer(options, peer, case, image, ours.precision))
        if isinstance(found, EngineRun):
            add(f"{peer.value}'s picture", lambda peer=peer: _agreement(options.out, peer))
    ceilings = add("ceilings", measure_ceilings) if options.ceilings else None
    measured = {name: spread.p50 for name, spread in ours.warm.items()}
    known = ceilings if isinstance(ceilings, Ceilings) and not options.devices else None
    if options.devices:
        reason = f"ceilings are those of one GPU, and {len(options.devices)} devices share each request"
        records.append(Unmeasured(engine="how far stages are from their limits", reason=reason))
    add("roofline", lambda: _or_failure("roofline", lambda: roofline(bundle, case, known, measured)))
    add("a step's work", lambda: _or_failure("a step's work", lambda: hoisting(bundle, case, unpruned)))
    if ours.memory.components:
        add("memory check", lambda: _or_failure("memory check", lambda: _memory_check(options, bundle, case, ours)))
    if options.ablation:
        executor = options.executor.options(options.vram_bytes, graphs=options.graphs)

        def ablation() -> Record:
            repeat = options.repeat
            return ablate(bundle, executor, case, image, repeat=repeat, unpruned=unpruned, ceilings=known)

        add("ablation", lambda: _or_failure("ablation", ablation))
    return records


def make_case(bundle: Bundle, options: BenchOptions) -> tuple[Case, Image.Image | None]:
    """Return the request, and its reference at its trained size; raise RequestError for what no request may be."""
    model = bundle.manifest.model
    reference, placed = None, None
    if not options.generate:
        picture = made_picture(squarest(model.sizes)) if options.image is None else read_picture(options.image)
        reference = nearest_size(picture.size, model.sizes)
        placed = place(picture, reference, Fit.RESIZE)[0]
    case = Case(
        size=options.size or reference or squarest(model.sizes),
        reference=reference,
        steps=model.flow.steps if options.steps is None else options.steps,
        batch=options.batch,
        seed=options.seed,
        guidance=model.flow.guidance if options.guidance is None else options.guidance,
        prompt=options.prompt,
        loras=tuple(f"{Path(one.path).absolute()}:{one.scale}" for one in options.loras),
    )
    request_of(case, placed)  # raises for what a request cannot be
    return case, placed


def made_picture(size: Size) -> Image.Image:
    """Return a smooth colourful picture, always the same."""
    coarse = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def write_report(records: list[Record], folder: Path) -> None:
    """Write JSON lines, the page and the chart of what is there so far; `require_report` was called before."""
    from ..figures import png
    from .chart import draw
    from .page import render

    runs = comparable(records)[0]
    chart = png(draw(runs)) if runs else None  # the page says the rest itself
    with atomic_file(folder / REPORT) as file:
        file.write(encode_lines(records))
    with atomic_file(folder / PAGE) as file:
        file.write(render(records, chart).encode())
    if chart is not None:
        with atomic_file(folder / CHART) as file:
            file.write(png(draw(runs, headline(records))))


def _ours(options: BenchOptions, case: Case, image: Path | None) -> EngineRun:
    return run_engine(
        EngineJob(
            bundle=options.bundle,
            executor=options.executor,
            devices=options.devices,
            vram_bytes=options.vram_bytes,
            graphs=options.graphs,
            case=case,
            image=image,
            repeat=options.repeat,
            picture=picture_path(options.out, ENGINE),
            result=options.out / f"{ENGINE}.json",
        )
    )


def _peer(
    options: BenchOptions, peer: PeerName, case: Case, image: Path | None, precision: str
) -> EngineRun | Unmeasured:
    assert options.checkpoint is not None
    return measure_peer(
        peer,
        options.checkpoint,
        case,
        image,
        repeat=options.repeat,
        folder=options.out,
        timeout_s=options.peer_timeout_s,
        precision=precision,
        search_decoder=options.search_decoder,
    )


def _agreement(folder: Path, peer: PeerName) -> Record:
    names = (ENGINE, peer.value)
    return agreement(picture_path(folder, ENGINE), picture_path(folder, peer.value), names)


def _memory_check(options: BenchOptions, bundle: Bundle, case: Case, run: EngineRun) -> Record:
    usual = squarest(bundle.manifest.model.sizes)
    if (case.size, case.reference, case.batch) != (usual, usual, 1):
        raise RequestError("memory is predicted for one picture of the squarest size with a reference like it")
    budget = options.vram_bytes
    residency = ALL_RESIDENT if budget is None else within(budget)
    gpus, _ = find_gpus()
    return check(predict(bundle, budget), run, residency, capability=capability_of(gpus[0]) if gpus else None)


def _or_failure(name: str, make: Callable[[], Record]) -> Record:
    """Return the record, or a Failure: what was measured so far is not lost with a part that cannot be had."""
    try:
        return make()
    except (KontextError, ValueError) as error:
        return Unmeasured(engine=name, reason=str(error))
