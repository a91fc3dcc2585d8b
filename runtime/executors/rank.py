"""Runs one rank of a group: its part of each request, on a device of its own."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...engine.bundle.bundle import Bundle
from ..flow.executor import Performed
from ..flow.group import Group
from ..flow.kept import KeptValues
from ..flow.shared_stages import SharedStage
from ..flow.shares import Share, Shares
from ..flow.stages import Stage
from ..flow.tensors import RequestShape
from ..flow.workspace import Array
from .onnxruntime_cpu import OnnxRuntimeCpu
from .options import Device
from .rank_job import RankJob
from .socket_group import SocketGroup

if TYPE_CHECKING:
    from .rank_cuda import CudaRank


class Rank:
    """Answers what the process that opened the group asks of a rank."""

    def __init__(self, job: RankJob) -> None:
        self._job, self._bundle = job, Bundle.open(job.bundle)
        self._group: Group | None = None
        self._executor: Any = None
        self._cuda: CudaRank | None = None

    def prepare(self) -> bytes:
        """Check that this rank's device can take part, and return what the others join it by: rank 0's is used."""
        if self._job.options.device is Device.CPU:
            return b""
        from .rank_cuda import CudaRank

        self._cuda = CudaRank(self._bundle, self._job)
        return self._cuda.meeting

    def join(self, meeting: bytes) -> tuple[str, list[str]]:
        """Join the group, and return the name of this rank's executor, and the lines of its residency."""
        job = self._job
        if job.options.device is Device.CPU:
            sockets = {rank: socket.socket(fileno=number) for rank, number in job.sockets.items()}
            self._group = SocketGroup(job.rank, sockets, timeout_s=job.options.devices_timeout_s)
            threads = job.options.threads or max(1, (os.cpu_count() or 1) // job.size)
            self._executor = OnnxRuntimeCpu(self._bundle, threads=threads, group=self._group)
            return self._executor.name, []
        assert self._cuda is not None
        self._executor, self._group = self._cuda.open(meeting)
        return self._executor.name, self._executor.residency.describe()

    def perform(
        self,
        shape: RequestShape,
        shares: Shares,
        stages: Sequence[Stage],
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
    ) -> Performed:
        """Run stages of a request on this rank's part of it; inputs and outputs are this rank's."""
        assert self._group is not None
        job, self._group.shares = self._job, shares
        own = replace(shape, share=Share(rank=job.rank, shares=shares))
        return self._executor.perform(
            own, [SharedStage(stage, job.rank, job.size, shape.batch) for stage in stages], inputs, tuple(outputs)
        )

    def keep(self, values: KeptValues) -> None:
        """Give the executor's kept inputs other values."""
        self._executor.keep(values)

    def run(self, component: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run a component alone."""
        return self._executor.run(component, inputs)

    def load(self, component: str) -> None:
        """Make a component ready to run."""
        self._executor.load(component)
