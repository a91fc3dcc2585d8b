"""What a benchmark found, as tables of words: the same for the screen and for the page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ...engine.byte_sizes import human_bytes
from .records import (
    Ablation,
    Agreement,
    Case,
    Ceilings,
    Clocks,
    Failure,
    Hoisting,
    Machine,
    MemoryCheck,
    Prediction,
    Record,
    Roofline,
    Run,
    Spread,
)

STAGES = ("tokenize", "prepare", "text", "encode", "condition", "denoise", "decode", "host_gap")
"""In the order of a request; they add up to its total."""

Kind = TypeVar("Kind", bound=Record)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A table. The first column is names, the others are figures; `note` says what they are."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def of_kind(records: Iterable[Record], kind: type[Kind]) -> list[Kind]:
    return [record for record in records if isinstance(record, kind)]


def comparable(records: Sequence[Record]) -> tuple[list[Run], list[str]]:
    """Runs whose pictures agree with the first one's, and words about the others: no speed is quoted of them."""
    runs = of_kind(records, Run)
    refused = {one.other: one for one in of_kind(records, Agreement) if not one.agree}
    words = [
        f"{name}: its picture is {one.psnr_db:.1f} dB from {one.one}'s, too far for its times to mean anything"
        for name, one in refused.items()
    ]
    return [run for run in runs if run.engine not in refused], words


def sections(records: Sequence[Record]) -> list[Section]:
    """All tables that these records fill."""
    runs, refused = comparable(records)
    refused += [f"{one.engine} was not measured: {one.reason}" for one in of_kind(records, Failure)]
    makers: tuple[Callable[[], Section | None], ...] = (
        lambda: _times(runs, refused),
        lambda: _cold(runs),
        lambda: _agreements(of_kind(records, Agreement)),
        lambda: _memory(runs),
        lambda: _components(runs),
        lambda: _clocks(runs),
        lambda: _ceilings(of_kind(records, Ceilings)),
        lambda: _roofline(of_kind(records, Roofline)),
        lambda: _hoisting(of_kind(records, Hoisting)),
        lambda: _ablation(of_kind(records, Ablation)),
        lambda: _prediction(of_kind(records, Prediction)),
        lambda: _memory_check(of_kind(records, MemoryCheck)),
    )
    return [section for make in makers if (section := make()) is not None]


def headline(records: Sequence[Record]) -> list[str]:
    """The machine and the request, a line each."""
    lines = []
    for machine in of_kind(records, Machine):
        gpu = f"{machine.gpu}, driver {machine.driver or 'unknown'}" if machine.gpu else "no GPU"
        versions = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
        lines += [
            f"{machine.date}: {gpu}; {machine.cores} cores of {machine.cpu}",
            f"{versions}, Python {machine.python}",
        ]
    for case in of_kind(records, Case):
        reference = f"reference {_size(case.reference)}" if case.reference else "no reference"
        lines.append(
            f"{_size(case.size)}, {reference}, {case.steps} steps, batch {case.batch}, guidance {case.guidance:g}"
        )
    return lines


def _times(runs: Sequence[Run], refused: Sequence[str]) -> Section | None:
    if not runs:
        return Section(title="times", columns=("",), rows=(), note="; ".join(refused)) if refused else None
    names = [name for name in ("total", "step", *STAGES) if any(name in run.warm for run in runs)]
    rows = tuple((name, *(_spread(run.warm.get(name)) for run in runs)) for name in names)
    ours = runs[0].warm.get("step")
    speeds = [
        f"a step of {runs[0].engine} takes {ours.p50 / theirs.p50:.2f} times {run.engine}'s"
        for run in runs[1:]
        if ours is not None and (theirs := run.warm.get("step")) is not None
    ]
    count = runs[0].warm["total"].count
    return Section(
        title="warm, ms",
        columns=("", *(run.engine for run in runs)),
        rows=rows,
        note="; ".join([f"median (95th, 99th percentile), {count} requests", *speeds, *refused]),
    )


def _cold(runs: Sequence[Run]) -> Section | None:
    names = list(dict.fromkeys(name for run in runs for name in run.cold))
    rows = tuple((name, *(_number(run.cold.get(name)) for run in runs)) for name in names)
    return Section(title="cold, ms", columns=("", *(run.engine for run in runs)), rows=rows) if rows else None


def _agreements(agreements: Sequence[Agreement]) -> Section | None:
    rows = tuple((one.other, f"{one.psnr_db:.1f}", "yes" if one.agree else "NO") for one in agreements)
    if not rows:
        return None
    title = f"pictures beside {agreements[0].one}'s"
    return Section(title=title, columns=("", "PSNR dB", "the same picture"), rows=rows)


def _memory(runs: Sequence[Run]) -> Section | None:
    if not runs:
        return None
    figures: Mapping[str, Callable[[Run], int | None]] = {
        "device, peak": lambda run: run.memory.device_peak,
        "activations (arena)": lambda run: run.memory.arena or None,
        "buffers of the request": lambda run: run.memory.buffers,
        "CUDA graphs": lambda run: run.memory.graphs,
        "host, peak resident": lambda run: run.memory.host_peak,
        "host, anonymous": lambda run: run.memory.host_anonymous,
    }
    rows = tuple(
        (name, *(_bytes(value(run)) for run in runs))
        for name, value in figures.items()
        if any(value(run) is not None for run in runs)
    )
    return Section(title="memory", columns=("", *(run.engine for run in runs)), rows=rows)


def _components(runs: Sequence[Run]) -> Section | None:
    for run in runs[:1]:
        if run.memory.components:
            rows = tuple(
                (name, _bytes(one.weights), _bytes(one.reckoned)) for name, one in run.memory.components.items()
            )
            note = "reckoned: weights and what the plan sets aside for running"
            return Section(title="loading, on the device", columns=("", "took", "reckoned"), rows=rows, note=note)
    return None


def _clocks(runs: Sequence[Run]) -> Section | None:
    measured = [(run.engine, run.clocks) for run in runs if run.clocks is not None]
    figures: Mapping[str, Callable[[Clocks], float | None]] = {
        "SM clock, MHz": lambda clocks: clocks.sm_mhz,
        "memory clock, MHz": lambda clocks: clocks.memory_mhz,
        "power, W": lambda clocks: clocks.power_w,
        "most power, W": lambda clocks: clocks.most_power_w,
        "most temperature, °C": lambda clocks: clocks.most_celsius,
        "clock held down, % of samples": lambda clocks: None if clocks.throttled is None else 100 * clocks.throttled,
    }
    rows = tuple((name, *(_number(value(clocks)) for _, clocks in measured)) for name, value in figures.items())
    return (
        Section(title="the GPU meanwhile", columns=("", *(name for name, _ in measured)), rows=rows)
        if measured
        else None
    )


def _ceilings(ceilings: Sequence[Ceilings]) -> Section | None:
    for one in ceilings:
        rows = [("copy, TB/s", f"{one.copy / 1e12:.2f}")]
        rows += [(f"{name} products, TFLOP/s", f"{rate / 1e12:.0f}") for name, rate in one.products.items()]
        rows += [(f"{name} attention, TFLOP/s", f"{rate / 1e12:.0f}") for name, rate in one.attention.items()]
        return Section(title="what this GPU reached", columns=("", "rate"), rows=tuple(rows), note=one.how)
    return None


def _roofline(rooflines: Sequence[Roofline]) -> Section | None:
    for one in rooflines:
        rows = tuple(
            (
                name,
                f"{sum([*stage.work.products.values(), *stage.work.attention.values()]) / 1e12:.2f}",
                _bytes(stage.work.weight_bytes),
                _number(stage.limit_ms),
                stage.bound or "",
                _number(stage.measured_ms),
                "" if stage.share is None else f"{100 * stage.share:.0f} %",
            )
            for name, stage in one.stages.items()
        )
        columns = ("", "TFLOP", "weights", "limit ms", "bound by", "measured ms", "of the limit")
        return Section(title="roofline", columns=columns, rows=rows, note="elementwise operators taken as fused")
    return None


def _hoisting(found: Sequence[Hoisting]) -> Section | None:
    for one in found:
        rows = tuple(
            (
                name,
                f"{work.parameters / 1e9:.3f}",
                f"{work.operations / 1e12:.2f}",
                _bytes(work.weight_bytes),
                _bytes(work.traffic_bytes),
            )
            for name, work in (
                ("undivided", one.undivided),
                ("conditioner hoisted", one.hoisted),
                ("last block pruned, too", one.pruned),
            )
        )
        columns = ("", "parameters, 10^9", "TFLOP", "weights", "traffic")
        return Section(title="a step's work", columns=columns, rows=rows)
    return None


def _ablation(ablations: Sequence[Ablation]) -> Section | None:
    for one in ablations:
        rows = tuple(
            (row.gain, row.about, _number(row.with_ms), _number(row.without_ms), f"{row.without_ms - row.with_ms:+.2f}")
            for row in one.rows
        )
        columns = ("switched off", "what is timed", "with, ms", "without, ms", "costs")
        return Section(title="ablation", columns=columns, rows=rows)
    return None


def _prediction(predictions: Sequence[Prediction]) -> Section | None:
    for one in predictions:
        rows = tuple(
            (
                f"{row.executor}, {row.precision}, {row.residency}",
                *map(_bytes, (row.weights, row.activations, row.buffers, row.peak, row.moved)),
            )
            for row in one.rows
        )
        columns = ("", "weights", "activations", "buffers", "peak", "loaded a request")
        return Section(title="memory, predicted", columns=columns, rows=rows)
    return None


def _memory_check(checks: Sequence[MemoryCheck]) -> Section | None:
    for one in checks:
        rows = tuple((row.what, _bytes(row.predicted), _bytes(row.measured)) for row in one.rows)
        title = f"memory, predicted for {one.executor} in {one.precision}, {one.residency}"
        return Section(title=title, columns=("", "predicted", "measured"), rows=rows)
    return None


def _spread(spread: Spread | None) -> str:
    return "" if spread is None else f"{spread.p50:.2f} ({spread.p95:.2f}, {spread.p99:.2f})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"


def _bytes(value: int | None) -> str:
    return "" if value is None else human_bytes(value)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
