"""Implements the executor over several devices, each with a process of its own: one request, shared by tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...engine.bundle.bundle import Bundle
from ...engine.components import KNOWN_COMPONENTS, PIXELS_PER_TOKEN, Runs
from ...engine.errors import ExecutorError, GpuMemoryError, RequestError
from ..flow.executor import Performed
from ..flow.kept import KeptValues
from ..flow.shared_tensors import given_by, never_run, own_inputs, slowest, whole_output
from ..flow.shares import Share, divide
from ..flow.stages import Stage
from ..flow.tensors import RequestShape
from ..flow.workspace import Array
from .options import OnnxRuntimeOptions
from .rank_job import RankJob
from .ranks import Ranks
from .sharing import check_sharing


@dataclass(frozen=True, slots=True)
class GroupResidency:
    """Says what lies in the memory of each device."""

    lines: tuple[str, ...]

    def describe(self) -> list[str]:
        """Return the lines of all devices."""
        return list(self.lines)


USUAL_STAGES = 100
"""The stages of one picture that ranks have the usual time for; more have as many times as long."""
USUAL_TOKENS = 16384
"""The tokens that ranks have the usual time for, those of nearly 3 MP with as large a reference.

Attention takes four times as long for twice as many, and so more have.
"""


class GroupExecutor:
    """Implements `Executor` by ranks that each run their part of every request.

    Args:
        bundle: The bundle that they run, of fused operators.
        options: Who runs it, with the devices.
        command: The command that starts a rank's process instead of its own, for benchmarks and tests.

    Raises:
        OptionError: The devices are too many or too few for this bundle.
        BundleError: The bundle has not the graphs for it.
        ExecutorError, MissingDependencyError: A device cannot take part.
    """

    def __init__(self, bundle: Bundle, options: OnnxRuntimeOptions, *, command: Sequence[str] | None = None) -> None:
        check_sharing(bundle, len(options.devices))
        self._bundle, self._size, self._closed = bundle, len(options.devices), False
        self._timeout_s, self._command = options.devices_timeout_s, command
        self._jobs = [
            RankJob(
                bundle=str(bundle.path),
                options=dataclasses.replace(options, device_id=device, devices=()),
                rank=rank,
                size=self._size,
                sockets={},
            )
            for rank, device in enumerate(options.devices)
        ]
        self._kept: KeptValues | None = None
        self._out_of_memory = False
        self._ranks, joined = self._start()
        places = ", ".join(name.split("(")[-1].rstrip(")") for name, _ in joined)
        self.name = f"{joined[0][0].split(' ')[0]} ({places})"
        lines = [f"{name}: {line}" for name, lines in joined for line in lines]
        self.residency = GroupResidency(tuple(lines)) if lines else None

    def _start(self) -> tuple[Ranks, list[tuple[str, list[str]]]]:
        """Start the ranks, and return them with the names of their executors, and the lines of their residency."""
        ranks = Ranks(self._started_jobs(), timeout_s=self._timeout_s, command=self._command)
        try:
            meeting = ranks.ask_apart("prepare")[0]
            joined: list[tuple[str, list[str]]] = ranks.ask("join", meeting)
            if self._kept is not None:
                ranks.ask_apart("keep", self._kept)
        except BaseException:
            ranks.close()
            raise
        return ranks, joined

    def _started_jobs(self) -> Sequence[RankJob]:
        return self._jobs

    def _live(self) -> Ranks:
        """Return the ranks, started anew if the last request was too large for one: the next one may not be."""
        if self._out_of_memory and not self._closed:
            self._ranks, _ = self._start()
            self._out_of_memory = False
        return self._ranks

    @property
    def lost(self) -> str:
        return "" if self._closed or self._out_of_memory else self._ranks.lost

    def perform(
        self, shape: RequestShape, stages: Sequence[Stage], inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> Performed:
        text, size, count = self._bundle.manifest.model.dims.text_length, self._size, len(shape.references)
        rows, columns = shape.grid
        if rows * columns < size:
            raise RequestError(
                f"{columns * PIXELS_PER_TOKEN}x{rows * PIXELS_PER_TOKEN} px are too few for {size} devices, of which "
                f"each computes at least {PIXELS_PER_TOKEN}x{PIXELS_PER_TOKEN}; ask for a larger picture, or open the "
                "bundle with fewer devices"
            )
        shares = divide(text, rows * columns, shape.num_reference_tokens, size)
        arguments = [
            (
                shape,
                shares,
                tuple(stages),
                own_inputs(inputs, Share(rank=rank, shares=shares), text_length=text, num_references=count),
                given_by(rank, outputs, shape.batch, count, size),
            )
            for rank in range(size)
        ]
        longer = 1 + len(stages) // USUAL_STAGES
        larger = -(-(text + rows * columns + shape.num_reference_tokens) // USUAL_TOKENS)
        performed = self._perform(arguments, times=shape.batch * longer * larger**2)
        given: dict[str, Array] = {}
        for name in outputs:
            by_rank = {rank: one.outputs[name] for rank, one in enumerate(performed) if name in one.outputs}
            given[name] = whole_output(name, by_rank, size)
        return Performed(outputs=given, milliseconds=slowest([one.milliseconds for one in performed]))

    def _perform(self, arguments: Sequence[Sequence[Any]], *, times: int) -> list[Performed]:
        """Let all ranks perform; where one has no memory, none can go on, and all are started anew for the next."""
        ranks = self._live()
        try:
            return ranks.ask_each("perform", arguments, times=times)
        except GpuMemoryError as error:
            if not ranks.lost:  # all said so, and live on
                raise
            self._out_of_memory = True
            raise GpuMemoryError(
                f"{ranks.lost}. The next request loads all networks again; ask for fewer or smaller pictures at a time"
            ) from error

    def keep(self, values: KeptValues) -> None:
        self._live().ask_apart("keep", values)
        self._kept = values

    def run(self, component: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if KNOWN_COMPONENTS[component].runs is Runs.STEP:
            raise ExecutorError(f"{component} is shared by {self._size} devices, and not run alone; open one device")
        (outputs,) = self._live().ask_apart("run", component, inputs, ranks=self._running(component)[:1])
        return outputs

    def load(self, component: str) -> None:
        self._live().ask_apart("load", component, ranks=self._running(component))

    def _running(self, component: str) -> list[int]:
        """Return the ranks that run a component."""
        return [rank for rank in range(self._size) if KNOWN_COMPONENTS[component].runs not in never_run(rank)]

    def close(self) -> None:
        self._closed = True
        self._ranks.close()
