"""Who runs a bundle, and how: options as types."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ...engine.flavour import FlavourName


class Device(str, Enum):
    """Where ONNX Runtime computes. AUTO takes a CUDA device if the installed ONNX Runtime has one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class WhenBusy(str, Enum):
    """What a session does with a request while another thread's runs."""

    WAIT = "wait"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxRuntimeOptions:
    """Run the bundle's graphs by ONNX Runtime.

    Args:
        device: CPU, CUDA, or whichever there is.
        device_id: number of the CUDA device.
        threads: for the CPU, 0 for one a core.
        vram_bytes: GPU memory to plan weights, activations and buffers for, of one picture of the usual size at a time;
            larger requests take more. Default: what is free.
        graphs: record CUDA graphs. ONNX Runtime's kernels are launched one by one otherwise.
    """

    device: Device = Device.AUTO
    device_id: int = 0
    threads: int = 0
    vram_bytes: int | None = None
    graphs: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRtOptions:
    """Run the bundle's plans by TensorRT or TensorRT-RTX.

    Args:
        flavour: the library; default: whichever is installed and has plans for this machine.
        device_id: number of the CUDA device.
        vram_bytes: GPU memory to plan weights, activations and buffers for, of one picture of the usual size at a time;
            larger requests take more. Default: what is free.
        graphs: record CUDA graphs.
        plans: another folder of plans than the bundle's own; it must be trusted.
        trust: open plans wherever they lie and whoever may write them. Plans are executable code.
    """

    flavour: FlavourName | None = None
    device_id: int = 0
    vram_bytes: int | None = None
    graphs: bool = True
    plans: Path | None = None
    trust: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyExecutor:
    """TensorRT if the bundle has plans for this machine, else ONNX Runtime, on a GPU if it can. `trust` is
    `TensorRtOptions`'."""

    vram_bytes: int | None = None
    graphs: bool = True
    trust: bool = False


ExecutorOptions = AnyExecutor | OnnxRuntimeOptions | TensorRtOptions


class ExecutorName(str, Enum):
    """Executors as the command line names them."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"

    def options(self, vram_bytes: int | None = None, *, graphs: bool = True, trust: bool = False) -> ExecutorOptions:
        if self is ExecutorName.AUTO:
            return AnyExecutor(vram_bytes=vram_bytes, graphs=graphs, trust=trust)
        if self in (ExecutorName.TENSORRT, ExecutorName.TENSORRT_RTX):
            flavour = FlavourName(self.value.replace("-", "_"))
            return TensorRtOptions(flavour=flavour, vram_bytes=vram_bytes, graphs=graphs, trust=trust)
        return OnnxRuntimeOptions(device=Device(self.value), vram_bytes=vram_bytes, graphs=graphs)
