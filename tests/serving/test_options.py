"""Options of a server: what is out of range is refused when it is written."""

from __future__ import annotations

import pytest

from kontext_trt import OptionError
from kontext_trt.serving.options import Keeping, Limits, ServingOptions


def test_limits_are_above_zero():
    with pytest.raises(OptionError, match="waiting must be a number above 0, not 0"):
        Limits(waiting=0)
    with pytest.raises(OptionError, match="session_seconds must be a number above 0, not -1"):
        Keeping(session_seconds=-1)
    with pytest.raises(OptionError, match="seconds must be a number above 0, not nan"):
        Limits(seconds=float("nan"))


def test_keys_are_not_shown_and_not_empty():
    assert "secret" not in repr(ServingOptions(keys=("secret",)))
    with pytest.raises(OptionError, match="a key is a text of one character at least"):
        ServingOptions(keys=("",))
