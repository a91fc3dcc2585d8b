"""Defines who runs a bundle, and how: options as types."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ...engine.flavour import FlavourName
from ...engine.spelling import Spelled, parse_name


class Device(str, Enum):
    """Names where ONNX Runtime computes.

    AUTO takes a CUDA device if there is a GPU and the installed ONNX Runtime was built for CUDA, else the CPU.
    """

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class WhenBusy(str, Enum):
    """Says what a Kontext does with a request while another thread's runs.

    WAIT lets it wait for its turn, REFUSE raises BusyError.
    """

    WAIT = "wait"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxRuntimeOptions:
    """Asks for the bundle's graphs to be run by ONNX Runtime.

    Attributes:
        device: The CPU, a CUDA device, or whichever there is.
        device_id: The number of the CUDA device.
        threads: The number of threads on the CPU, 0 for one per core.
        vram_bytes: The GPU memory, in bytes, to plan weights, activations and buffers for, of one picture of the usual
            size at a time; larger requests take more. None for what is free.
        graphs: True to record CUDA graphs. ONNX Runtime's kernels are launched one by one otherwise.
    """

    device: Device = Device.AUTO
    device_id: int = 0
    threads: int = 0
    vram_bytes: int | None = None
    graphs: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", parse_name(Device, "device", self.device))


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRtOptions:
    """Asks for the bundle's plans to be run by TensorRT or TensorRT-RTX.

    Attributes:
        flavour: The library; None for whichever is installed and has plans for this machine.
        device_id: The number of the CUDA device.
        vram_bytes: The GPU memory, in bytes, to plan weights, activations and buffers for, of one picture of the usual
            size at a time; larger requests take more. None for what is free.
        graphs: True to record CUDA graphs.
        plans: Another folder of plans than the bundle's own, as `build_plans` takes it.
        trust: True to open plans that this user did not sign. Plans are executable code.
    """

    flavour: FlavourName | None = None
    device_id: int = 0
    vram_bytes: int | None = None
    graphs: bool = True
    plans: Path | None = None
    trust: bool = False

    def __post_init__(self) -> None:
        if self.flavour is not None:
            object.__setattr__(self, "flavour", parse_name(FlavourName, "flavour", self.flavour))


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyExecutor:
    """Asks for TensorRT if the bundle has plans for this machine, else for ONNX Runtime, on a GPU if it can.

    Plans that are not trusted raise UntrustedPlanError; ONNX Runtime does not take their place.

    Attributes:
        vram_bytes: The GPU memory, in bytes, as in `OnnxRuntimeOptions` and `TensorRtOptions`.
        graphs: True to record CUDA graphs.
        plans: Another folder of plans, as in `TensorRtOptions`.
        trust: True to open plans as in `TensorRtOptions`.
    """

    vram_bytes: int | None = None
    graphs: bool = True
    plans: Path | None = None
    trust: bool = False


ExecutorOptions = AnyExecutor | OnnxRuntimeOptions | TensorRtOptions


class ExecutorName(Spelled):
    """Names executors as the command line does."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt_rtx"

    def options(
        self,
        vram_bytes: int | None = None,
        *,
        graphs: bool = True,
        plans: Path | None = None,
        trust: bool = False,
    ) -> ExecutorOptions:
        if self is ExecutorName.AUTO:
            return AnyExecutor(vram_bytes=vram_bytes, graphs=graphs, plans=plans, trust=trust)
        if self in (ExecutorName.TENSORRT, ExecutorName.TENSORRT_RTX):
            flavour = FlavourName(self.value)
            return TensorRtOptions(flavour=flavour, vram_bytes=vram_bytes, graphs=graphs, plans=plans, trust=trust)
        return OnnxRuntimeOptions(device=Device(self.value), vram_bytes=vram_bytes, graphs=graphs)


def executor_options(executor: ExecutorOptions | ExecutorName | str | None) -> ExecutorOptions:
    """Return the options that a caller gives, or names as the command line does; None is "auto".

    Raises:
        OptionError: It is neither; the message lists the names.
    """
    if isinstance(executor, AnyExecutor | OnnxRuntimeOptions | TensorRtOptions):
        return executor
    return parse_name(ExecutorName, "executor", ExecutorName.AUTO if executor is None else executor).options()
