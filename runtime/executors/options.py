"""Defines who runs a bundle, and how: options as types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from ...engine.errors import OptionError
from ...engine.flavour import FlavourName
from ...engine.spelling import Spelled, parse_name

DEVICES_TIMEOUT_S = 900.0
"""The seconds that devices have for what they are asked, the loading of all networks from a slow disk included."""

MOST_TIMEOUT_S = 86_400.0
"""The most of these seconds: a day."""


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
        devices: The numbers of the CUDA devices that share each request, or how many; none for `device_id` alone. A
            list of one number is that device alone. On the CPU each is a process.
        devices_timeout_s: The seconds after which devices that share requests and do not answer are given up; a request
            of several pictures has as many times as long.
    """

    device: Device = Device.AUTO
    device_id: int = 0
    threads: int = 0
    vram_bytes: int | None = None
    graphs: bool = True
    devices: tuple[int, ...] = ()
    devices_timeout_s: float = DEVICES_TIMEOUT_S

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", parse_name(Device, "device", self.device))
        shared = parse_devices(self.devices)
        if len(shared) == 1:
            object.__setattr__(self, "device_id", shared[0])
        object.__setattr__(self, "devices", shared if len(shared) > 1 else ())
        if not 0 < self.devices_timeout_s <= MOST_TIMEOUT_S:
            raise OptionError(
                f"devices_timeout_s must be above 0 and at most {MOST_TIMEOUT_S:g}, not {self.devices_timeout_s!r}"
            )


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
        devices: The CUDA devices, as in `OnnxRuntimeOptions`, which then runs the bundle: plans are of one device.
    """

    vram_bytes: int | None = None
    graphs: bool = True
    plans: Path | None = None
    trust: bool = False
    devices: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "devices", parse_devices(self.devices))


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
        devices: int | Sequence[int] | None = None,
    ) -> ExecutorOptions:
        """Return options of this executor.

        Raises:
            OptionError: It does not run on several devices, or these are none.
        """
        shared = parse_devices(devices)
        if self is ExecutorName.AUTO:
            return AnyExecutor(vram_bytes=vram_bytes, graphs=graphs, plans=plans, trust=trust, devices=shared)
        if self in (ExecutorName.TENSORRT, ExecutorName.TENSORRT_RTX):
            if len(shared) > 1:
                raise _one_device(self.value)
            return TensorRtOptions(
                flavour=FlavourName(self.value),
                device_id=shared[0] if shared else 0,
                vram_bytes=vram_bytes,
                graphs=graphs,
                plans=plans,
                trust=trust,
            )
        return OnnxRuntimeOptions(device=Device(self.value), vram_bytes=vram_bytes, graphs=graphs, devices=shared)


def executor_options(
    executor: ExecutorOptions | ExecutorName | str | None, devices: int | Sequence[int] | None = None
) -> ExecutorOptions:
    """Return the options that a caller gives, or names as the command line does; None is "auto".

    Args:
        executor: Options, or a name.
        devices: How many CUDA devices share each request, or their numbers; None for what the options say.

    Raises:
        OptionError: It is neither; the message lists the names. Or the devices are none, or the executor runs on one.
    """
    if not isinstance(executor, AnyExecutor | OnnxRuntimeOptions | TensorRtOptions):
        name = parse_name(ExecutorName, "executor", ExecutorName.AUTO if executor is None else executor)
        return name.options(devices=devices)
    if devices is None:
        return executor
    shared = parse_devices(devices)
    if not isinstance(executor, TensorRtOptions):
        return replace(executor, devices=shared)
    if len(shared) > 1:
        raise _one_device("tensorrt")
    return replace(executor, device_id=shared[0]) if shared else executor


def parse_devices(devices: int | Sequence[int] | None) -> tuple[int, ...]:
    """Return the numbers of the devices that share each request; none of them for one device.

    Args:
        devices: How many, which are the first ones, or their numbers.

    Raises:
        OptionError: They are none of these, or one is named twice.
    """
    if devices is None:
        return ()
    if isinstance(devices, int):
        if isinstance(devices, bool) or devices < 1:
            raise _no_devices(devices)
        return tuple(range(devices)) if devices > 1 else ()
    if isinstance(devices, str) or not isinstance(devices, Sequence):
        raise _no_devices(devices)
    numbers = tuple(devices)
    if not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in numbers):
        raise _no_devices(devices)
    if len(set(numbers)) < len(numbers):
        twice = next(one for one in numbers if numbers.count(one) > 1)
        raise OptionError(f"devices names device {twice} twice: {', '.join(map(str, numbers))}")
    return numbers


def read_devices(text: str) -> int | tuple[int, ...]:
    """Return the devices that a text names: how many, as "4", or their numbers with commas, as "0,2".

    Raises:
        OptionError: It is neither.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdecimal() for word in words):
        raise OptionError(f"--devices is how many, as 4, or their numbers, as 0,2, not {text!r}")
    return int(words[0]) if len(words) == 1 else tuple(map(int, words))


def _no_devices(devices: object) -> OptionError:
    return OptionError(f"devices is how many there are, from 1, or a list of their numbers, not {devices!r}")


def _one_device(executor: str) -> OptionError:
    return OptionError(
        f"plans of {executor} run on one device: leave out the devices, or share requests with the executor cuda"
    )
