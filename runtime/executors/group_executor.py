"""Implements the executor over several devices, each with a process of its own: one request, shared by tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...engine.bundle.bundle import Bundle
from ...engine.components import KNOWN_COMPONENTS, PIXELS_PER_TOKEN, Runs
from ...engine.errors import ExecutorError, RequestError
from ..flow.executor import Performed
from ..flow.kept import KeptValues
from ..flow.shared_tensors import TEXT_RANK, given_by, own_inputs, slowest, whole_output
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
        jobs = [
            RankJob(
                bundle=str(bundle.path),
                options=dataclasses.replace(options, device_id=device, devices=()),
                rank=rank,
                size=self._size,
                sockets={},
            )
            for rank, device in enumerate(options.devices)
        ]
        self._ranks = Ranks(jobs, timeout_s=options.devices_timeout_s, command=command)
        try:
            meeting = self._ranks.ask("prepare")[0]
            joined: list[tuple[str, list[str]]] = self._ranks.ask("join", meeting)
        except BaseException:
            self._ranks.close()
            raise
        places = ", ".join(name.split("(")[-1].rstrip(")") for name, _ in joined)
        self.name = f"{joined[0][0].split(' ')[0]} ({places})"
        lines = [f"{name}: {line}" for name, lines in joined for line in lines]
        self.residency = GroupResidency(tuple(lines)) if lines else None

    @property
    def lost(self) -> str:
        return "" if self._closed else self._ranks.lost

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
        performed: list[Performed] = self._ranks.ask_each("perform", arguments)
        given: dict[str, Array] = {}
        for name in outputs:
            by_rank = {rank: one.outputs[name] for rank, one in enumerate(performed) if name in one.outputs}
            given[name] = whole_output(name, by_rank, size)
        return Performed(outputs=given, milliseconds=slowest([one.milliseconds for one in performed]))

    def keep(self, values: KeptValues) -> None:
        self._ranks.ask("keep", values)

    def run(self, component: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if KNOWN_COMPONENTS[component].runs is Runs.STEP:
            raise ExecutorError(f"{component} is shared by {self._size} devices, and not run alone; open one device")
        return self._ranks.ask_one(TEXT_RANK, "run", component, inputs)

    def load(self, component: str) -> None:
        if KNOWN_COMPONENTS[component].runs is Runs.PROMPT:
            self._ranks.ask_one(TEXT_RANK, "load", component)
        else:
            self._ranks.ask("load", component)

    def close(self) -> None:
        self._closed = True
        self._ranks.close()
