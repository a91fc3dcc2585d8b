"""Says what can be done next with a bundle that was made."""

from __future__ import annotations

from ..engine.builder.preflight import check_operators
from ..engine.bundle.bundle import Bundle
from ..engine.errors import BuildError


def how_to_edit(bundle: Bundle) -> str:
    """Say how a picture is edited, and that this machine cannot if that is so."""
    from ..export.machine import why_bundle_not_here

    elsewhere = "on a machine that runs it, " if why_bundle_not_here(bundle) else ""
    return f"{elsewhere}edit a picture with: kontext-trt edit {bundle.path} --image IMAGE --prompt PROMPT"


def how_to_run_quantized(bundle: Bundle) -> str:
    """Say how a quantized bundle is compiled, or how a picture is edited if no plans can be built of it."""
    try:
        check_operators(bundle, bundle.components)
    except BuildError:
        return how_to_edit(bundle)
    return f'compile it with: kontext-trt build {bundle.path} --gpu "rtx 5090"'
