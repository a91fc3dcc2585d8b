"""Opens a rank on a CUDA device, with the kernels that exchange heads with the others."""

from __future__ import annotations

from ...engine.bundle.bundle import Bundle
from ...engine.components import KNOWN_COMPONENTS, Runs
from ...engine.errors import ExecutorError
from ...engine.system.gpus import Gpu, find_gpus
from ..device.cuda import CudaPython, Handle
from ..device.executor import DeviceExecutor
from ..device.group import NcclGroup, unique_id
from ..flow.group import Group
from ..flow.shared_tensors import TEXT_RANK
from .fused_kernels import fused_architecture, obstacles
from .on_device import device_options, onnxruntime_residency
from .onnxruntime_cuda import OnnxRuntimeEngines
from .onnxruntime_session import SILENT, import_onnxruntime
from .rank_job import RankJob


def prepare(bundle: Bundle, job: RankJob) -> bytes:
    """Return what the ranks of a group find each other by.

    Raises:
        ExecutorError: The device has no kernels for the bundle, or is not there.
        MissingDependencyError: A package is missing.
    """
    gpu = _gpu(job)
    steps = [name for name in bundle.components if KNOWN_COMPONENTS[name].runs is Runs.STEP]
    reasons = list(obstacles(bundle, steps, gpu))
    if reasons:
        raise ExecutorError(f"{gpu.name} cannot share requests with others: {'; '.join(reasons)}")
    return unique_id()


def open_rank(bundle: Bundle, job: RankJob, meeting: bytes) -> tuple[DeviceExecutor, Group]:
    """Join the group and open this rank's executor. Returns when all ranks have joined.

    Raises:
        ExecutorError: NCCL cannot join them.
        BudgetError: The budget of memory is too small.
    """
    import_onnxruntime().set_default_logger_severity(SILENT)  # or each session warns of its device's number
    options, cuda = job.options, CudaPython(job.options.device_id)
    engines = OnnxRuntimeEngines(bundle, cuda, fused_architecture(bundle, _gpu(job)))
    without = frozenset[Runs]() if job.rank == TEXT_RANK else frozenset({Runs.PROMPT})
    plan = onnxruntime_residency(bundle, options.vram_bytes, cuda, without=without)

    def join(stream: Handle) -> Group:
        engines.group = NcclGroup(cuda, stream, meeting, job.rank, job.size)
        return engines.group

    executor = DeviceExecutor(bundle, engines, cuda, plan, device_options(options), join=join)
    assert engines.group is not None
    return executor, engines.group


def _gpu(job: RankJob) -> Gpu:
    return find_gpus()[0][job.options.device_id]
