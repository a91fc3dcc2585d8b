"""Defines what a plan is made for: a library in its exact version, and a GPU."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..documents import Text
from ..errors import OptionError, TargetError
from ..flavour import Flavour, FlavourName, installed_flavours
from ..system.gpus import Gpu

PORTABLE = "portable"
"""The name of TensorRT-RTX's own default.

It is one plan for every GPU from sm_80 that it knows, finished on the GPU at its first run.
"""

# Names in shops, for people who know their card but not its number. What can be built is the library's to say.
_GPU_NAMES = (
    (r"rtx 50\d\d|rtx pro \d+", "sm_120"),
    (r"gb10|dgx spark", "sm_121"),
    (r"rtx 40\d\d|l4|l40s?|rtx \d+ ada", "sm_89"),
    (r"rtx 30\d\d|rtx a\d+|a10g?|a16|a40", "sm_86"),
    (r"a100|a30", "sm_80"),
    (r"h100|h200|gh200", "sm_90"),
    (r"b200|gb200", "sm_100"),
    (r"b300|gb300", "sm_103"),
    (r"rtx 20\d\d|gtx 16\d\d|t4", "sm_75"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Describes what a plan is made for.

    Attributes:
        flavour: The library, "tensorrt" or "tensorrt_rtx".
        version: The library's exact version.
        capability: The GPU's compute capability, such as "sm_89", or `PORTABLE`.
        gpu: The device's name where kernels were timed on it, "" where a plan serves every GPU of its capability.
    """

    flavour: Text
    version: Text
    capability: Text
    gpu: Text = ""

    def __str__(self) -> str:
        device = f" ({self.gpu})" if self.gpu else ""
        return f"{self.capability}{device}, {self.flavour} {self.version}"


def capability_of(gpu: Gpu) -> str:
    """Return the compute capability of a GPU, such as "sm_89"."""
    return f"sm_{gpu.major}{gpu.minor}"


def parse_gpu(text: str, gpus: Sequence[Gpu]) -> str:
    """Return the compute capability that a user means.

    Args:
        text: The user's words: "sm_89", "8.9", "rtx 5090", "5090", "current" or "portable".
        gpus: The machine's GPUs, of which the first is the current one.

    Returns:
        The capability, such as "sm_89", or `PORTABLE`.

    Raises:
        TargetError: The name is not known, or it is "current" and there is no GPU.
    """
    asked = re.sub(
        r"\s+", " ", re.sub(r"nvidia|geforce|tesla|generation|laptop gpu|laptop|[-_](?!\d+$)", " ", text.lower())
    ).strip()
    if asked == PORTABLE:
        return PORTABLE
    if asked == "current":
        if not gpus:
            raise TargetError(
                'no GPU was found on this machine; name one, for example --gpu sm_120 or --gpu "rtx 4090"'
            )
        return capability_of(gpus[0])
    asked = re.sub(r"^(?=[2345]0[5-9]0\b)", "rtx ", asked)  # "5090" is no other maker's
    if match := re.fullmatch(r"(?:sm_?|compute_?)?(\d{1,2})\.?(\d)", asked):
        return f"sm_{match[1]}{match[2]}"
    for pattern, capability in _GPU_NAMES:
        if re.fullmatch(
            f"({pattern})(?: ?(ti|super|ti super|d|max q|sxm\\d?|pcie|blackwell.*|hbm\\d\\w?|\\d+ ?gb))*", asked
        ):
            return capability
    raise TargetError(
        f"{text!r} is no GPU known by name; give its compute capability, for example --gpu sm_89, or --gpu current on "
        "the machine that has it"
    )


def choose_flavour(asked: str, capability: str, gpus: Sequence[Gpu]) -> FlavourName:
    """Return the library that is asked for by name; "auto" is TensorRT on the GPU itself, else TensorRT-RTX.

    "auto" leaves TensorRT out where only TensorRT-RTX is installed.

    Raises:
        OptionError: There is no such library.
    """
    if asked != "auto":
        try:
            return FlavourName(asked)
        except ValueError:
            allowed = ", ".join(("auto", *(name.value for name in FlavourName)))
            raise OptionError(f"flavour must be one of {allowed}, not {asked!r}") from None
    here, installed = any(capability_of(gpu) == capability for gpu in gpus), installed_flavours()
    if here and (FlavourName.TENSORRT in installed or not installed):
        return FlavourName.TENSORRT
    return FlavourName.TENSORRT_RTX


def make_target(flavour: Flavour, capability: str, gpus: Sequence[Gpu]) -> Target:
    """Return the target of a library and a compute capability.

    Raises:
        TargetError: The flavour cannot build for the capability here; the message names what can be done instead.
    """
    if flavour.ahead_of_time:
        allowed = flavour.capabilities or ()
        if capability not in (*allowed, PORTABLE):
            raise TargetError(
                f"TensorRT-RTX {flavour.version} has no {capability}; it builds for {', '.join(allowed)} and "
                f"{PORTABLE}. For other GPUs build with --flavour tensorrt on the GPU itself"
            )
        return Target(flavour=flavour.name, version=flavour.version, capability=capability)
    here = [gpu for gpu in gpus if capability_of(gpu) == capability]
    if not here:
        found = ", ".join(f"{gpu.name} ({capability_of(gpu)})" for gpu in gpus) or "no GPU"
        raise TargetError(
            f"TensorRT builds on the GPU that a plan is for; {capability} was asked for and this machine has {found}. "
            "Build there, or ahead of time with --flavour tensorrt_rtx"
        )
    return Target(flavour=flavour.name, version=flavour.version, capability=capability, gpu=here[0].name)


def check_formats(capability: str, formats: Iterable[str]) -> None:
    """Raise TargetError if a GPU cannot multiply matrices in one of `formats` (fp32, fp16, bf16, fp8, nvfp4)."""
    if capability == PORTABLE:
        major, minor, name = 8, 0, "the portable target (sm_80 and later)"
    else:
        digits = capability.removeprefix("sm_")
        major, minor, name = int(digits[:-1]), int(digits[-1]), capability
    for number_format in formats:
        if number_format == "bf16" and major < 8:
            raise TargetError(f"{name} has no bf16, which starts at sm_80; export with --precision fp16")
        if number_format == "fp8" and (major, minor) < (8, 9):
            raise TargetError(f"{name} has no fp8, which starts at sm_89; export with --precision {_plain(major)}")
        if number_format == "nvfp4" and major not in (10, 12):
            better = "fp8" if (major, minor) >= (8, 9) else _plain(major)
            raise TargetError(f"{name} has no nvfp4, which sm_10x and sm_12x have; export or quantize to {better}")


def _plain(major: int) -> str:
    return "bf16" if major >= 8 else "fp16"
