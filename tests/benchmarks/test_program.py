"""What the benchmarks' programs read from their arguments."""

from __future__ import annotations

import pytest

from kontext_trt.benchmarks.program import parse_blocks, run_main
from kontext_trt.engine.errors import RequestError


def test_blocks():
    assert parse_blocks("19+38") == (19, 38)
    for text in ("x", "1", "1+", "+1", "0+1", "1+2+3", "-1+2"):
        with pytest.raises(RequestError, match=r"blocks are DOUBLE\+SINGLE"):
            parse_blocks(text)


def test_an_interrupt_is_an_exit_code(capsys: pytest.CaptureFixture[str]):
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        run_main(interrupted)
    assert (ended.value.code, *capsys.readouterr()) == (130, "", "")
