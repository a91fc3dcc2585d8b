"""Lines are whole, whenever a process that writes them ends."""

from pathlib import Path

import pytest

from kontext_trt.engine.system.json_lines import Appender


def test_lines_are_added_and_what_was_torn_is_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"a":1}\n{"a":')
    with path.open("a+b") as file:
        appender = Appender[dict[str, int]](file, "lines")
        assert "lines: the last line was not finished, and is removed" in caplog.text
        appender.add({"a": 2})
        assert path.read_bytes() == b'{"a":1}\n{"a":2}\n'  # before it is closed
        appender.add({"a": 3})
    caplog.clear()
    with path.open("a+b") as file:
        Appender[dict[str, int]](file, "lines").add({"a": 4})
    assert path.read_bytes() == b'{"a":1}\n{"a":2}\n{"a":3}\n{"a":4}\n'
    assert not caplog.text
