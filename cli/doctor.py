"""Defines the command `doctor`."""

from __future__ import annotations

from ..engine.byte_sizes import human_bytes
from ..engine.plans.targets import capability_of
from ..engine.system.doctor import diagnose
from .options import JsonOption
from .terminal import print_json, screen


def doctor(json: JsonOption = False) -> None:
    """Show versions and GPUs, what is missing, and the command that mends it."""
    found = diagnose()
    if json:
        print_json(found)
        return
    screen.print(f"Python {found.python} on {found.platform}")
    for gpu in found.gpus:
        screen.print(f"GPU {gpu.index}: {gpu.name}, {human_bytes(gpu.memory_bytes)}, {capability_of(gpu)}")
    if not found.gpus:
        screen.print(f"no GPU: {found.no_gpu_reason}")
    for part in found.parts:
        mark = "yes" if part.usable else "no "
        packages = ", ".join(f"{name} {version or 'missing'}" for name, version in part.packages.items())
        screen.print(f"{mark} {part.name}: {packages}")
        if not part.usable:
            screen.print(f"    {part.command}")
