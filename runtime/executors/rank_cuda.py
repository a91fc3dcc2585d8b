"""Opens a rank on a CUDA device, with the kernels that exchange heads with the others."""

from __future__ import annotations

from ...engine.bundle.bundle import Bundle
from ...engine.components import KNOWN_COMPONENTS, Runs
from ...engine.errors import ExecutorError
from ...engine.system.gpus import find_gpus
from ..device.cuda import CudaPython, Handle
from ..device.executor import DeviceExecutor
from ..device.group import NcclGroup, unique_id
from ..flow.group import Group
from ..flow.shared_tensors import never_run
from .fused_kernels import fused_architecture, obstacles
from .on_device import device_options, onnxruntime_residency
from .onnxruntime_cuda import OnnxRuntimeEngines
from .onnxruntime_session import SILENT, import_onnxruntime
from .rank_job import RankJob


class CudaRank:
    """Opens a rank in two steps: what it checks by itself, and what takes all ranks.

    Raises:
        ExecutorError: The device has no kernels for the bundle, or is not there.
        BudgetError: The budget of memory is too small.
        MissingDependencyError: A package is missing.
    """

    def __init__(self, bundle: Bundle, job: RankJob) -> None:
        self._bundle, self._job, gpu = bundle, job, find_gpus()[0][job.options.device_id]
        steps = [name for name in bundle.components if KNOWN_COMPONENTS[name].runs is Runs.STEP]
        reasons = list(obstacles(bundle, steps, gpu))
        if reasons:
            raise ExecutorError(f"{gpu.name} cannot share requests with others: {'; '.join(reasons)}")
        self._architecture = fused_architecture(bundle, gpu)
        self._cuda = CudaPython(job.options.device_id)
        self._plan = onnxruntime_residency(bundle, job.options.vram_bytes, self._cuda, without=never_run(job.rank))
        self.meeting = unique_id()
        """The bytes that the ranks of a group find each other by, if they are this one's."""

    def open(self, meeting: bytes) -> tuple[DeviceExecutor, Group]:
        """Join the group and open this rank's executor. Returns when all ranks have joined.

        Raises:
            ExecutorError: NCCL cannot join them.
        """
        import_onnxruntime().set_default_logger_severity(SILENT)  # or each session warns of its device's number
        job, engines = self._job, OnnxRuntimeEngines(self._bundle, self._cuda, self._architecture)

        def join(stream: Handle) -> Group:
            engines.group = NcclGroup(self._cuda, stream, meeting, job.rank, job.size)
            return engines.group

        options = device_options(job.options)
        executor = DeviceExecutor(self._bundle, engines, self._cuda, self._plan, options, join=join)
        assert engines.group is not None
        return executor, engines.group
