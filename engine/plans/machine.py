"""Compares what this machine can open with a plan's manifest, before a library sees the plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..system.gpus import Gpu
from .manifest import PlanManifest
from .options import Compatibility
from .targets import PORTABLE, Target, capability_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Describes an installed library and the GPU that plans would run on; `gpu` is None where there is none."""

    flavour: str
    version: str
    gpu: Gpu | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """Describes a field of a plan that does not fit this machine, with both values."""

    field: str
    plan: str
    machine: str

    def __str__(self) -> str:
        return f"{self.field} is {self.plan} in the plan and {self.machine} here"


def mismatches(manifest: PlanManifest, machine: Machine) -> Iterator[Mismatch]:
    """Yield every field in which a plan does not fit a machine."""
    target = manifest.ingredients.target
    if target.flavour != machine.flavour:
        yield Mismatch(field="library", plan=target.flavour, machine=machine.flavour)
    if target.version != machine.version:
        yield Mismatch(field="library version", plan=target.version, machine=machine.version)
    if machine.gpu is None:
        yield Mismatch(field="GPU", plan=target.gpu or target.capability, machine="none")
        return
    yield from _gpu_mismatches(target, manifest.ingredients.options.compatibility, machine.gpu)


def _gpu_mismatches(target: Target, compatibility: Compatibility, gpu: Gpu) -> Iterator[Mismatch]:
    here = capability_of(gpu)
    if target.capability == PORTABLE or compatibility is Compatibility.AMPERE_PLUS:
        if gpu.major < 8:
            yield Mismatch(field="compute capability", plan="sm_80 or later", machine=here)
    elif target.capability != here:
        yield Mismatch(field="compute capability", plan=target.capability, machine=here)
    elif target.gpu not in ("", gpu.name) and compatibility is Compatibility.NONE:
        yield Mismatch(field="GPU", plan=target.gpu, machine=gpu.name)
