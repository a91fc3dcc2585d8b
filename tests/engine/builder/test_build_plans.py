"""Plans for several targets: what is refused before the first compiler starts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from compiler_fixtures import COVERAGE

from kontext_trt import build_plans
from kontext_trt.engine.bundle.bundle import Bundle
from kontext_trt.engine.errors import BuildError, OptionError, TargetError
from kontext_trt.engine.plans.options import BuildOptions, Compatibility
from kontext_trt.engine.plans.store import LOGS, PlanStore


def refused(bundle: Bundle, **arguments: object) -> None:
    """Call with arguments that must be refused, and look that nothing was built."""
    try:
        build_plans(bundle.path, coverage=COVERAGE, **arguments)  # pyright: ignore[reportArgumentType]
    finally:
        assert list(PlanStore.of(bundle.path).entries()) == []
        assert not (PlanStore.of(bundle.path).folder / LOGS).exists()


def test_room_for_all_targets_is_checked_before_the_first(wide_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plans of one target alone would fit on the disk."""
    usage = SimpleNamespace(free=100 << 20)
    monkeypatch.setattr("kontext_trt.engine.builder.preflight.shutil.disk_usage", lambda folder: usage)
    with pytest.raises(BuildError, match=r"^clip will probably not build here: disk: about 0\.1 GiB needed"):
        refused(wide_bundle, gpus=("sm_86", "sm_89"), components=("clip",))


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"gpus": ("sm_89", "sm_90")}, TargetError, "has no sm_90"),
        ({"gpus": ("sm_89",), "components": ("clip", "unet")}, OptionError, "component must be one of clip, t5"),
        ({"gpus": ("sm_89",), "flavour": "trt"}, OptionError, "flavour must be one of auto, tensorrt"),
        (
            {"gpus": ("sm_89",), "options": BuildOptions(compatibility=Compatibility.AMPERE_PLUS)},
            BuildError,
            "has no hardware compatibility levels",
        ),
    ],
)
def test_what_the_last_target_or_component_lacks_is_said_before_the_first_is_built(
    wide_bundle: Bundle, arguments: dict[str, object], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        refused(wide_bundle, **arguments)
