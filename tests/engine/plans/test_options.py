"""Options: what is refused, and how they are told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kontext_trt.engine.errors import BuildError, OptionError
from kontext_trt.engine.flavour import Flavour
from kontext_trt.engine.plans.options import BuildOptions, Compatibility, Refit, check_options


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimization_level": 6}, "the optimization level is 0 to 5, not 6"),
        ({"workspace_bytes": 4096}, "a workspace of 4096 bytes is too small"),
        ({"max_aux_streams": -1}, "must not be negative"),
        ({"strip": True}, "add --refit full or --refit identical"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        BuildOptions(**fields)


def test_only_changes_are_told() -> None:
    assert BuildOptions().describe() == "default options"
    told = BuildOptions(optimization_level=5, refit=Refit.IDENTICAL, strip=True).describe()
    assert told == "optimization_level 5, refit identical, strip"


def test_refit_and_strip_need_a_driver_where_the_library_says_so(rtx: Flavour) -> None:
    options = BuildOptions(refit=Refit.FULL, strip=True)
    check_options(options, rtx, has_driver=True)
    with pytest.raises(BuildError, match="compiles on the GPU for refit and strip, and this machine has none"):
        check_options(options, rtx, has_driver=False)


def test_compatibility_levels_are_tensorrts(rtx: Flavour) -> None:
    options = BuildOptions(compatibility=Compatibility.SAME_CAPABILITY)
    with pytest.raises(BuildError, match="tensorrt_rtx has no hardware compatibility levels; build for several GPUs"):
        check_options(options, rtx, has_driver=True)
    timed: Any = SimpleNamespace(needs_driver=(), compatibility_flags=lambda: {"same_capability": 1})
    check_options(options, timed, has_driver=True)
