"""Tells what the GPU reached, how far stages are from it, and what hoisting saves, as tables of words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .records import Ceilings, Hoisting, Roofline
from .section import Section, bytes_text, count_text, number_text


def ceilings_section(ceilings: Sequence[Ceilings]) -> Section | None:
    """Return the table of what the GPU reached, of the first record."""
    for one in ceilings:
        rows = [("copy, TB/s", f"{one.copy / 1e12:.2f}")]
        rows += [(f"{name} products, TFLOP/s", f"{rate / 1e12:.0f}") for name, rate in one.products.items()]
        rows += [(f"{name} attention, TFLOP/s", f"{rate / 1e12:.0f}") for name, rate in one.attention.items()]
        return Section(title="what this GPU reached", columns=("", "rate"), rows=tuple(rows), note=one.how)
    return None


def roofline_section(rooflines: Sequence[Roofline]) -> Section | None:
    """Return the table of each stage beside its limit, of the first record."""
    for one in rooflines:
        rows = tuple(
            (
                name,
                count_text(sum([*stage.work.products.values(), *stage.work.attention.values()])),
                bytes_text(stage.work.weight_bytes),
                bytes_text(stage.work.io_bytes),
                number_text(stage.limit_ms),
                stage.bound or "",
                number_text(stage.measured_ms),
                "" if stage.share is None else f"{100 * stage.share:.0f} %",
            )
            for name, stage in one.stages.items()
        )
        columns = ("", "FLOP", "weights", "I/O", "limit ms", "bound by", "measured", "of limit")
        notes = ["elementwise operators taken as fused", *_formats(one), *_lacking(one)]
        return Section(title="roofline", columns=columns, rows=rows, note="; ".join(notes))
    return None


def _formats(roofline: Roofline) -> Iterator[str]:
    """Say what is computed in which number format, of stages that have several."""
    for name, stage in roofline.stages.items():
        kinds = (("products", stage.work.products), ("attention", stage.work.attention))
        formats = {number_format for _, found in kinds for number_format in found}
        if len(formats) > 1:
            counts = (f"{count_text(n)} of {kind} in {one}" for kind, found in kinds for one, n in found.items())
            yield f"{name}: {', '.join(counts)}"


def _lacking(roofline: Roofline) -> Iterator[str]:
    for name, stage in roofline.stages.items():
        if stage.lacks:
            yield f"{name} has no limit without a rate of {', '.join(stage.lacks)}"


def hoisting_section(found: Sequence[Hoisting]) -> Section | None:
    """Return the table of a step's work before and after hoisting and pruning, of the first record."""
    for one in found:
        rows = tuple(
            (
                name,
                count_text(work.parameters),
                count_text(work.operations),
                bytes_text(work.weight_bytes),
                bytes_text(work.traffic_bytes),
            )
            for name, work in (
                ("undivided", one.undivided),
                ("conditioner hoisted", one.hoisted),
                ("last block pruned, too", one.pruned),
            )
        )
        columns = ("", "parameters", "FLOP", "weights", "traffic")
        return Section(title="a step's work", columns=columns, rows=rows)
    return None
