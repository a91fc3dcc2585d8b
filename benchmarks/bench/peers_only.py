"""Peers and ceilings by themselves, for a machine or a moment without our own engine."""

from __future__ import annotations

from collections.abc import Callable

from ...engine.bundle import Bundle
from ...engine.progress import Progress, Silent
from .bench import BenchOptions, make_case, picture_path, write_report
from .ceilings import measure_ceilings
from .machine import this_machine
from .peers import agreement, measure_peer
from .records import Record, Run


def run_peers(options: BenchOptions, progress: Progress | None = None) -> list[Record]:
    """As `run_bench`, without our engine: pictures are compared with the first peer's."""
    assert options.checkpoint is not None
    progress, checkpoint = progress or Silent(), options.checkpoint
    options.out.mkdir(parents=True, exist_ok=True)
    case, image = make_case(Bundle.open(options.bundle), options)
    records: list[Record] = [this_machine(), case]

    def add(task: str, make: Callable[[], Record]) -> Record:
        progress.start(task, 1)
        records.append(make())
        progress.advance(1)
        write_report(records, options.out)
        return records[-1]

    measured: list[str] = []
    for peer in options.peers:
        found = add(
            peer.value,
            lambda peer=peer: measure_peer(peer, checkpoint, case, image, repeat=options.repeat, folder=options.out),
        )
        if isinstance(found, Run):
            measured.append(peer.value)
            if len(measured) > 1:
                first, last = measured[0], measured[-1]
                paths = picture_path(options.out, first), picture_path(options.out, last)
                records.append(agreement(*paths, (first, last)))
    if options.ceilings:
        add("ceilings", measure_ceilings)
    write_report(records, options.out)
    return records
