"""Defines how a plan is built. All of it is part of the plan's key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import Enum

from ..documents import Count
from ..errors import BuildError, OptionError
from ..flavour import Flavour


class Refit(str, Enum):
    """Says whether weights can be exchanged in a finished plan.

    IDENTICAL costs no speed and takes only equal weights.
    """

    NONE = "none"
    FULL = "full"
    IDENTICAL = "identical"


class Compatibility(str, Enum):
    """Says which other GPUs may run a TensorRT plan, at some cost of speed.

    Attributes:
        NONE: Only the very model that it was built on.
        SAME_CAPABILITY: Those of the same compute capability.
        AMPERE_PLUS: Those from sm_80.
    """

    NONE = "none"
    SAME_CAPABILITY = "same_capability"
    AMPERE_PLUS = "ampere_plus"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """Says how a plan is built. None leaves a choice to the library.

    Attributes:
        workspace_bytes: The most GPU memory that a kernel may use beside activations, at least 1 MiB.
        optimization_level: 0 (fast to build) to 5 (fast to run); the library's own default is 3.
        max_aux_streams: The streams that a plan may use beside the caller's; 0 gives one stream and the least memory.
        refit: Whether weights can be exchanged in the finished plan, as `Refit` says.
        strip: True to leave weights that refitting supplies out of the plan. It needs `refit`.
        weight_streaming: True if weights may stay in host memory, and come as they are needed. Such a plan is not
            recorded in a CUDA graph.
        compatibility: Which other GPUs may run the plan, as `Compatibility` says.

    Raises:
        OptionError: A number is out of range, or `strip` is without `refit`.
    """

    workspace_bytes: Count | None = None
    optimization_level: Count | None = None
    max_aux_streams: Count | None = None
    refit: Refit = Refit.NONE
    strip: bool = False
    weight_streaming: bool = False
    compatibility: Compatibility = Compatibility.NONE

    def __post_init__(self) -> None:
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise OptionError(f"the optimization level is 0 to 5, not {self.optimization_level}")
        if self.workspace_bytes is not None and self.workspace_bytes < 1 << 20:
            raise OptionError(f"a workspace of {self.workspace_bytes} bytes is too small; give at least 1 MiB")
        if self.max_aux_streams is not None and self.max_aux_streams < 0:
            raise OptionError(f"max_aux_streams must not be negative, but is {self.max_aux_streams}")
        if self.strip and self.refit is Refit.NONE:
            raise OptionError("a stripped plan gets its weights by refitting; add --refit full or --refit identical")

    def describe(self) -> str:
        """Say what differs from the defaults: "optimization_level 5, strip"; "default options" if nothing does."""
        return ", ".join(self._changes()) or "default options"

    @property
    def recordable(self) -> bool:
        """True if a CUDA graph can record the plan: with streamed weights an execution waits for the host."""
        return not self.weight_streaming

    def _changes(self) -> Iterator[str]:
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                text = value.value if isinstance(value, Enum) else value
                yield field.name if value is True else f"{field.name} {text}"


def check_options(options: BuildOptions, flavour: Flavour, *, has_driver: bool) -> None:
    """Raise BuildError for what a flavour does not have, or not on a machine without a CUDA driver."""
    if options.compatibility is not Compatibility.NONE and options.compatibility.value not in (
        flavour.compatibility_flags()
    ):
        raise BuildError(
            f"{flavour.name} has no hardware compatibility levels; build for several GPUs with --gpu sm_89 "
            "--gpu sm_120, or for all with --gpu portable"
        )
    asked = {"refit": options.refit is not Refit.NONE, "strip": options.strip}
    missing = [name for name in flavour.needs_driver if asked.get(name)]
    if missing and not has_driver:
        raise BuildError(
            f"{flavour.name} {flavour.version} compiles on the GPU for {' and '.join(missing)}, and this machine has "
            f"none; build without --{missing[0]}, or on a machine with the GPU"
        )
