"""Says whether several devices can share the requests of a bundle, and which number of them can."""

from __future__ import annotations

from ...engine.bundle.bundle import Bundle
from ...engine.components import KNOWN_COMPONENTS, Operators, Precision, Runs
from ...engine.errors import BundleError, OptionError
from ...engine.model_dims import ModelDims

MOST_DEVICES = 8
"""The most devices that are joined: as many as one host has with links between them."""


def heads_of(dims: ModelDims) -> int:
    """Return the number of attention heads of a model."""
    return dims.hidden // (2 * dims.rope_width)


def fitting(heads: int) -> tuple[int, ...]:
    """Return the numbers of devices that heads can be divided among, from 2."""
    return tuple(number for number in range(2, MOST_DEVICES + 1) if heads % number == 0)


def check_sharing(bundle: Bundle, devices: int) -> None:
    """Check that a bundle's requests can be shared by a number of devices.

    Raises:
        OptionError: They do not divide its heads; the message names the nearest numbers that do.
        BundleError: Its graphs have no fused operators to exchange heads in, or have them in fp16, in which none do.
    """
    heads = heads_of(bundle.manifest.model.dims)
    possible = fitting(heads)
    if devices not in possible:
        nearest = sorted(sorted(possible, key=lambda one: abs(one - devices))[:2])
        others = f"{' or '.join(map(str, nearest))} can, or 1" if nearest else "open 1"
        raise OptionError(f"{heads} heads cannot be shared by {devices} devices; {others}")
    for name in bundle.components:
        if KNOWN_COMPONENTS[name].runs is not Runs.STEP:
            continue
        record = bundle.graph(name)
        if record.operators != Operators.FUSED.value:
            raise BundleError(
                f"{bundle.path} cannot be shared by several devices: its {name} has no fused operators; export the "
                "checkpoint again with --operators fused"
            )
        if record.precision is Precision.FP16:
            raise BundleError(
                f"{bundle.path} cannot be shared by several devices: its {name} is in fp16, in which fused operators "
                "exchange no heads; export the checkpoint again with --operators fused --precision bf16 for GPUs, or "
                "fp32 for the CPU"
            )
