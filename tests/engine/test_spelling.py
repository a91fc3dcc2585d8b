"""Names in two spellings."""

from __future__ import annotations

import pytest

from kontext_trt import OptionError
from kontext_trt.engine.flavour import FlavourName
from kontext_trt.engine.spelling import Spelled, parse_name
from kontext_trt.runtime.executors.options import ExecutorName


@pytest.mark.parametrize("names", [FlavourName, ExecutorName])
@pytest.mark.parametrize("text", ["tensorrt-rtx", "tensorrt_rtx", "TensorRT-RTX"])
def test_hyphens_and_underscores_name_the_same(names: type[Spelled], text: str) -> None:
    assert names(text).value == "tensorrt_rtx"


@pytest.mark.parametrize("value", ["tensorrt rtx", "", 5, None, {}])
def test_what_is_no_name_is_refused_with_the_list(value: object) -> None:
    with pytest.raises(OptionError, match="flavour must be one of tensorrt, tensorrt_rtx, not ") as refusal:
        parse_name(FlavourName, "flavour", value)
    assert repr(value) in str(refusal.value)
