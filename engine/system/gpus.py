"""Lists the GPUs of this machine, asked of the CUDA driver alone."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

ATTRIBUTE_MAJOR, ATTRIBUTE_MINOR = 75, 76  # CUdevice_attribute


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """Describes one device; `major`.`minor` is its compute capability."""

    index: int
    name: str
    major: int
    minor: int
    memory_bytes: int


def find_gpus() -> tuple[tuple[Gpu, ...], str]:
    """Return the devices, and why there are none ("" if there are); no CUDA context is created."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return (), "the NVIDIA driver is not installed"
    status = driver.cuInit(0)
    if status != 0:
        return (), f"the NVIDIA driver cannot be used (cuInit returned error {status})"
    count = ctypes.c_int(0)
    driver.cuDeviceGetCount(ctypes.byref(count))
    gpus = tuple(_describe(driver, index) for index in range(count.value))
    return gpus, "" if gpus else "the driver shows no device (CUDA_VISIBLE_DEVICES may hide it)"


def _describe(driver: ctypes.CDLL, index: int) -> Gpu:
    device, name, memory = ctypes.c_int(0), ctypes.create_string_buffer(256), ctypes.c_size_t(0)
    major, minor = ctypes.c_int(0), ctypes.c_int(0)
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), ATTRIBUTE_MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), ATTRIBUTE_MINOR, device)
    return Gpu(index=index, name=name.value.decode(), major=major.value, minor=minor.value, memory_bytes=memory.value)


def pci_bus_id(index: int) -> str | None:
    """Return where a device sits ("0000:1b:00.0"), which other tools know it by; None if there is no such device."""
    if index >= len(find_gpus()[0]):
        return None
    driver, device, bus = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(0), ctypes.create_string_buffer(32)
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetPCIBusId(bus, len(bus), device)
    return bus.value.decode()
