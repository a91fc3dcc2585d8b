"""Opens an executor: which one, on which device, with what in its memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace

from ...engine.bundle.bundle import Bundle
from ...engine.errors import ExecutorError, MissingDependencyError, PlanError, UntrustedPlanError
from ...engine.flavour import Flavour, FlavourName, installed_flavours, load_flavour
from ...engine.plans.choice import choose_plans
from ...engine.plans.machine import Machine
from ...engine.plans.manifest import PlanManifest
from ...engine.plans.store import PlanStore
from ...engine.system.gpus import Gpu, find_gpus
from ..flow.executor import Executor
from .fused_kernels import fused_architecture
from .on_device import device_options, onnxruntime_residency, plan_costs, residency
from .onnxruntime_cpu import OnnxRuntimeCpu
from .onnxruntime_session import has_cuda, import_onnxruntime
from .options import AnyExecutor, Device, ExecutorOptions, OnnxRuntimeOptions, TensorRtOptions

logger = logging.getLogger(__name__)


def open_executor(
    bundle: Bundle, options: ExecutorOptions, *, without_kernels: AbstractSet[str] = frozenset()
) -> Executor:
    """Open the executor that options ask for.

    `without_kernels` names fused operators of the catalogue whose bodies ONNX Runtime runs on a CUDA device although
    there are kernels, so that a benchmark can tell what each is worth.

    Raises MissingDependencyError, PlanError, BudgetError or ExecutorError.
    """
    if isinstance(options, TensorRtOptions):
        return _open_tensorrt(bundle, options)
    if options.devices:
        return _open_on_devices(bundle, options, without_kernels)
    if isinstance(options, OnnxRuntimeOptions):
        return _open_onnxruntime(bundle, options, without_kernels)
    if any(PlanStore.of(bundle.path, options.plans).entries()) and find_gpus()[0]:
        chosen = TensorRtOptions(
            vram_bytes=options.vram_bytes, graphs=options.graphs, plans=options.plans, trust=options.trust
        )
        try:
            return _open_tensorrt(bundle, chosen)
        except UntrustedPlanError:
            raise
        except (PlanError, MissingDependencyError) as error:
            logger.warning("ONNX Runtime runs this bundle, not its plans: %s", error)
    chosen = OnnxRuntimeOptions(vram_bytes=options.vram_bytes, graphs=options.graphs)
    return _open_onnxruntime(bundle, chosen, without_kernels)


def _open_on_devices(
    bundle: Bundle, options: OnnxRuntimeOptions | AnyExecutor, without_kernels: AbstractSet[str]
) -> Executor:
    """Open an executor over devices that are named: GPUs, or processes on the CPU where it was asked for."""
    from .group_executor import GroupExecutor

    if isinstance(options, AnyExecutor):
        options = OnnxRuntimeOptions(vram_bytes=options.vram_bytes, graphs=options.graphs, devices=options.devices)
    if options.device is not Device.CPU:
        gpus, reason = find_gpus()
        missing = [str(device) for device in options.devices or (options.device_id,) if device >= len(gpus)]
        if missing:
            found = f"this machine has {len(gpus)}, whose numbers begin with 0" if gpus else reason
            raise ExecutorError(
                f"there is no GPU {', '.join(missing)}: {found}. To try it without GPUs, processes on the CPU share "
                "requests with the executor cpu"
            )
        options = replace(options, device=_device(Device.CUDA))
    elif options.vram_bytes is not None:
        logger.warning("a budget of GPU memory means nothing on the CPU, where this bundle runs")
    if not options.devices:
        return _open_onnxruntime(bundle, options, without_kernels)
    if without_kernels:
        raise ExecutorError("operators without kernels are run by one device: bodies exchange nothing with others")
    return GroupExecutor(bundle, options)


def _device(device: Device) -> Device:
    """Return the CPU or CUDA. Raises ExecutorError if the installed ONNX Runtime has no CUDA support."""
    import_onnxruntime()
    if device is Device.CUDA and not has_cuda():
        raise ExecutorError(
            "the installed ONNX Runtime has no CUDA support; replace it with one that has: "
            "pip uninstall onnxruntime && pip install 'kontext-trt[gpu]'"
        )
    if device is Device.AUTO:
        return Device.CUDA if has_cuda() and find_gpus()[0] else Device.CPU
    return device


def _open_onnxruntime(bundle: Bundle, options: OnnxRuntimeOptions, without_kernels: AbstractSet[str]) -> Executor:
    if _device(options.device) is Device.CPU:
        if options.vram_bytes is not None:
            logger.warning("a budget of GPU memory means nothing on the CPU, where this bundle runs")
        return OnnxRuntimeCpu(bundle, threads=options.threads)
    from ..device.cuda import CudaPython
    from ..device.executor import DeviceExecutor
    from .onnxruntime_cuda import OnnxRuntimeEngines

    cuda = CudaPython(options.device_id)
    plan, shapes = onnxruntime_residency(bundle, options.vram_bytes, cuda), device_options(options)
    kernels_for = fused_architecture(bundle, find_gpus()[0][options.device_id])
    engines = OnnxRuntimeEngines(bundle, cuda, kernels_for, without_kernels=without_kernels)
    return DeviceExecutor(bundle, engines, cuda, plan, shapes)


def _open_tensorrt(bundle: Bundle, options: TensorRtOptions) -> Executor:
    from ..device.cuda import CudaPython
    from ..device.executor import DeviceExecutor
    from .tensorrt import TensorRtEngines

    gpus, reason = find_gpus()
    if options.device_id >= len(gpus):
        raise ExecutorError(f"there is no GPU {options.device_id}: {reason or f'this machine has {len(gpus)}'}")
    cuda = CudaPython(options.device_id)
    cuda.use()  # libraries try plans on the device that is current
    store = PlanStore.of(bundle.path, options.plans, trust=options.trust)
    flavour, machine, plans = _choose(bundle, store, options, gpus[options.device_id])
    plan = residency(bundle, plan_costs(bundle, plans), options.vram_bytes, cuda.memory()[0])
    shapes = device_options(options)
    engines = TensorRtEngines(bundle, store, plans, flavour, machine, cuda)
    return DeviceExecutor(bundle, engines, cuda, plan, shapes)


def _choose(
    bundle: Bundle, store: PlanStore, options: TensorRtOptions, gpu: Gpu
) -> tuple[Flavour, Machine, Mapping[str, PlanManifest]]:
    """Return the first flavour with a plan for every component that its library opens here, the machine and the plans.

    Raises the last one's error, and UntrustedPlanError at once.
    """
    names = (options.flavour,) if options.flavour is not None else installed_flavours() or (FlavourName.TENSORRT,)
    problem: PlanError | MissingDependencyError | None = None
    for name in names:
        try:
            flavour = load_flavour(name)
            machine = Machine(flavour=flavour.name, version=flavour.version, gpu=gpu)
            plans = choose_plans(store, bundle, machine)
            _try(store, plans, machine, flavour)
            return flavour, machine, plans
        except UntrustedPlanError:
            raise
        except (PlanError, MissingDependencyError) as error:
            problem = error
    assert problem is not None
    raise problem


def _try(store: PlanStore, plans: Mapping[str, PlanManifest], machine: Machine, flavour: Flavour) -> None:
    """Raise PlanError for plans that would be refused at the first request.

    All are opened alike, so the smallest is checked to the end.
    """
    for component, plan in plans.items():
        store.check_trust(component, plan.key)
    smallest = min(plans, key=lambda component: plans[component].size_bytes)
    with store.open(smallest, plans[smallest].key, machine, flavour.refusal):
        pass
