"""Tells what a benchmark found as tables of words: the same for the screen and for the page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from ...engine.sizes import size_text
from .limit_sections import ceilings_section, hoisting_section, roofline_section
from .records import (
    Ablation,
    Agreement,
    Case,
    Ceilings,
    Clocks,
    EngineRun,
    Hoisting,
    Host,
    MemoryCheck,
    Prediction,
    Record,
    Roofline,
    Unmeasured,
)
from .section import ENOUGH, Section, bytes_text, number_text, spread_text

STAGES = ("tokenize", "prepare", "text", "encode", "condition", "denoise", "decode", "host_gap")
"""The stages in the order of a request; they add up to its total."""

PRUNING = "last-block pruning"
Kind = TypeVar("Kind", bound=Record)


def of_kind(records: Iterable[Record], kind: type[Kind]) -> list[Kind]:
    """Return the records of one kind."""
    return [record for record in records if isinstance(record, kind)]


def comparable(records: Sequence[Record]) -> tuple[list[EngineRun], list[str]]:
    """Return the runs whose pictures agree with the first one's, and words about the others.

    No speed is quoted of the others.
    """
    runs = of_kind(records, EngineRun)
    refused = {one.other: one for one in of_kind(records, Agreement) if not one.agree}
    words = [
        f"{name}: its picture is not {one.one}'s (PSNR {one.psnr_db:.1f} dB, SNR {one.snr_db:.1f} dB), "
        "so its times mean nothing"
        for name, one in refused.items()
    ]
    return [run for run in runs if run.engine not in refused], words


def sections(records: Sequence[Record]) -> list[Section]:
    """Return all tables that these records fill."""
    runs, refused = comparable(records)
    refused += [f"{one.engine} was not measured: {one.reason}" for one in of_kind(records, Unmeasured)]
    makers: tuple[Callable[[], Section | None], ...] = (
        lambda: _times(runs, refused),
        lambda: _spreads(runs),
        lambda: _cold(runs),
        lambda: _agreements(of_kind(records, Agreement)),
        lambda: _memory(runs),
        lambda: _components(runs),
        lambda: _clocks(runs),
        lambda: ceilings_section(of_kind(records, Ceilings)),
        lambda: roofline_section(of_kind(records, Roofline)),
        lambda: hoisting_section(of_kind(records, Hoisting)),
        lambda: _ablation(of_kind(records, Ablation)),
        lambda: _prediction(of_kind(records, Prediction)),
        lambda: _memory_check(of_kind(records, MemoryCheck)),
    )
    return [section for make in makers if (section := make()) is not None]


def headline(records: Sequence[Record]) -> list[str]:
    """Return the machine and the request, one line each."""
    lines = []
    for machine in of_kind(records, Host):
        gpu = f"{machine.gpu}, driver {machine.driver or 'unknown'}" if machine.gpu else "no GPU"
        versions = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
        lines += [
            f"{machine.date}: {gpu}; {machine.cores} cores of {machine.cpu}",
            f"{versions}, Python {machine.python}",
        ]
    for case in of_kind(records, Case):
        reference = f"reference {size_text(case.reference)}" if case.reference else "no reference"
        lines.append(
            f"{size_text(case.size)}, {reference}, {case.steps} steps, batch {case.batch}, guidance {case.guidance:g}: "
            f"{case.prompt!r}"
        )
    lines += [f"bundle {run.bundle}" for run in of_kind(records, EngineRun) if run.bundle is not None]
    return lines


def _times(runs: Sequence[EngineRun], refused: Sequence[str]) -> Section | None:
    if not runs:
        return Section(title="times", columns=("",), rows=(), note="; ".join(refused)) if refused else None
    rows = [
        ("on", *(run.executor for run in runs)),
        ("in", *(run.precision for run in runs)),
        *([("devices", *(str(len(run.devices) or 1) for run in runs))] if any(run.devices for run in runs) else []),
        *((name, *(number_text(_median(run, name)) for run in runs)) for name in _timed(runs)),
    ]
    count = runs[0].warm["total"].count
    notes = [f"{run.engine}: {note}" for run in runs for note in run.notes]
    return Section(
        title="warm, median ms",
        columns=("", *(run.engine for run in runs)),
        rows=tuple(rows),
        note="; ".join([f"{count} requests", *_speeds(runs), *notes, *refused]),
    )


def _speeds(runs: Sequence[EngineRun]) -> Iterator[str]:
    ours = runs[0]
    for run in runs[1:]:
        one, other = _median(ours, "step"), _median(run, "step")
        if run.precision != ours.precision:
            yield f"{run.engine} computes in {run.precision}, {ours.engine} in {ours.precision}: not compared"
        elif one is not None and other is not None:
            yield f"a step of {ours.engine} takes {one / other:.2f} times {run.engine}'s"


def _spreads(runs: Sequence[EngineRun]) -> Section | None:
    """Return percentiles where there are values enough for them, else the range."""
    if not runs:
        return None
    rows = tuple((name, *(spread_text(run.warm.get(name)) for run in runs)) for name in _timed(runs))
    note = f"95th and 99th percentile of {ENOUGH} values or more; of fewer, from the least to the most"
    return Section(title="warm, spread in ms", columns=("", *(run.engine for run in runs)), rows=rows, note=note)


def _timed(runs: Sequence[EngineRun]) -> list[str]:
    return [name for name in ("total", "step", *STAGES) if any(name in run.warm for run in runs)]


def _median(run: EngineRun, name: str) -> float | None:
    return run.warm[name].p50 if name in run.warm else None


def _cold(runs: Sequence[EngineRun]) -> Section | None:
    names = list(dict.fromkeys(name for run in runs for name in run.cold))
    rows = tuple((name, *(number_text(run.cold.get(name)) for run in runs)) for name in names)
    return Section(title="cold, ms", columns=("", *(run.engine for run in runs)), rows=rows) if rows else None


def _agreements(agreements: Sequence[Agreement]) -> Section | None:
    rows = tuple(
        (one.other, f"{one.psnr_db:.1f}", f"{one.snr_db:.1f}", "yes" if one.agree else "NO") for one in agreements
    )
    if not rows:
        return None
    title = f"pictures beside {agreements[0].one}'s"
    return Section(title=title, columns=("", "PSNR dB", "SNR dB", "the same picture"), rows=rows)


def _memory(runs: Sequence[EngineRun]) -> Section | None:
    if not runs:
        return None
    figures: Mapping[str, Callable[[EngineRun], int | None]] = {
        "device, peak": lambda run: run.memory.device_peak,
        "activations (arena)": lambda run: run.memory.arena or None,
        "buffers of the request": lambda run: run.memory.buffers,
        "CUDA graphs": lambda run: run.memory.graphs,
        "host, peak resident": lambda run: run.memory.host_peak,
        "host, anonymous": lambda run: run.memory.host_anonymous,
    }
    rows = tuple(
        (name, *(bytes_text(value(run)) for run in runs))
        for name, value in figures.items()
        if any(value(run) is not None for run in runs)
    )
    return Section(title="memory", columns=("", *(run.engine for run in runs)), rows=rows)


def _components(runs: Sequence[EngineRun]) -> Section | None:
    for run in runs[:1]:
        if run.memory.components:
            rows = tuple(
                (name, bytes_text(one.weights), bytes_text(one.reckoned)) for name, one in run.memory.components.items()
            )
            note = "reckoned: weights and what the plan sets aside for running"
            return Section(title="loading, on the device", columns=("", "took", "reckoned"), rows=rows, note=note)
    return None


def _clocks(runs: Sequence[EngineRun]) -> Section | None:
    measured = [(run.engine, run.clocks) for run in runs if run.clocks is not None]
    figures: Mapping[str, Callable[[Clocks], float | None]] = {
        "SM clock, MHz": lambda clocks: clocks.sm_mhz,
        "memory clock, MHz": lambda clocks: clocks.memory_mhz,
        "power, W": lambda clocks: clocks.power_w,
        "most power, W": lambda clocks: clocks.most_power_w,
        "most temperature, °C": lambda clocks: clocks.most_celsius,
        "clock held down, % of samples": lambda clocks: None if clocks.throttled is None else 100 * clocks.throttled,
    }
    rows = tuple((name, *(number_text(value(clocks)) for _, clocks in measured)) for name, value in figures.items())
    return (
        Section(title="the GPU meanwhile", columns=("", *(name for name, _ in measured)), rows=rows)
        if measured
        else None
    )


def _ablation(ablations: Sequence[Ablation]) -> Section | None:
    for one in ablations:
        rows = tuple(
            (
                row.gain,
                row.about,
                number_text(row.with_ms),
                number_text(row.without_ms),
                "failed" if row.with_ms is None or row.without_ms is None else f"{row.without_ms - row.with_ms:+.2f}",
                "" if row.predicted_ms is None else f"{row.predicted_ms:+.2f}",
            )
            for row in one.rows
        )
        columns = ("switched off", "what is timed", "with, ms", "without, ms", "costs", "predicted")
        notes = [f"without {row.gain}: {row.failure}" for row in one.rows if row.failure] + list(one.notes)
        if all(row.gain != PRUNING for row in one.rows):
            notes.append(f"no row for {PRUNING}: it needs a second bundle, --unpruned")
        return Section(title="ablation", columns=columns, rows=rows, note="; ".join(notes))
    return None


def _prediction(predictions: Sequence[Prediction]) -> Section | None:
    for one in predictions:
        rows = tuple(
            (
                f"{row.executor}, {row.precision}, {row.residency}",
                *map(bytes_text, (row.weights, row.activations, row.buffers, row.peak, row.moved)),
            )
            for row in one.rows
        )
        columns = ("", "weights", "activations", "buffers", "peak", "loaded per request")
        return Section(title="memory, predicted", columns=columns, rows=rows)
    return None


def _memory_check(checks: Sequence[MemoryCheck]) -> Section | None:
    for one in checks:
        rows = tuple((row.what, bytes_text(row.predicted), bytes_text(row.measured)) for row in one.rows)
        title = f"memory, predicted for {one.executor} in {one.precision}, {one.residency}"
        return Section(title=title, columns=("", "predicted", "measured"), rows=rows)
    return None
