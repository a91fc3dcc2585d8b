"""What is missing is named all at once, with the extra that has all of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kontext_trt import MissingDependencyError
from kontext_trt.engine.system import packages
from kontext_trt.export import environment
from kontext_trt.export.environment import require_demo, require_export, require_quantize


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Hides modules; none named hides all."""

    def hide(*names: str) -> None:
        find = packages.find_spec
        for module in (packages, environment):
            monkeypatch.setattr(module, "find_spec", lambda name: None if not names or name in names else find(name))

    return hide


def test_quantizing_names_its_own_extra_on_a_machine_that_has_nothing(without: Callable[..., None]) -> None:
    without()
    with pytest.raises(MissingDependencyError) as refusal:
        require_quantize()
    assert str(refusal.value).startswith(
        "quantizing needs torch, diffusers, transformers, huggingface-hub, onnx, onnx-ir"
    )
    assert str(refusal.value).endswith("nvidia-modelopt; install it with: pip install 'kontext-trt[quantize]'")


def test_exporting_names_what_needs_it(without: Callable[..., None]) -> None:
    without("onnx_ir")
    with pytest.raises(MissingDependencyError, match=r"^exporting needs onnx-ir; .*'kontext-trt\[export\]'$"):
        require_export()
    with pytest.raises(MissingDependencyError, match=r"^fusing LoRAs needs onnx-ir; "):
        require_export("fusing LoRAs")


@pytest.mark.parametrize(
    ("hidden", "extras"), [(("torch",), "export"), (("onnxruntime",), "export,cpu"), ((), "export,cpu")]
)
def test_the_demo_names_what_runs_it_before_it_exports(
    without: Callable[..., None], hidden: tuple[str, ...], extras: str
) -> None:
    without(*hidden)
    with pytest.raises(MissingDependencyError) as refusal:
        require_demo()
    assert str(refusal.value).endswith(f"pip install 'kontext-trt[{extras}]'")
