"""Filters from texts, as a command line has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kontext_trt import CommandFilter, OptionError, WordList
from kontext_trt.runtime.filters.parse import FilterDetails, absolute_filter, parse_filters


def test_texts_stand_for_filters(tmp_path: Path) -> None:
    words = tmp_path / "a:b.txt"
    words.write_text("weapon")
    first, second = parse_filters([f"words:{words}", "command:true 'a b'"], FilterDetails(seconds=3))
    assert isinstance(first, WordList)
    assert isinstance(second, CommandFilter)
    assert (first.name, second.name) == ("a:b.txt", "true")


@pytest.mark.parametrize(
    ("text", "details", "message"),
    [
        ("words", {}, "a filter is words:FILE, onnx:PATH or command:'PROGRAM ARGUMENTS', not 'words'"),
        ("words: ", {}, "a filter is words:FILE"),
        ("word:x", {}, "there is no kind of filter 'word'"),
        ("command:'", {}, "is no command: No closing quotation"),
        ("command:no-such-program", {}, "there is no program 'no-such-program'"),
        ("words:x", {"labels": ("a",)}, "labels and a threshold are about a classifier"),
        ("words:x", {"threshold": 0.0}, "labels and a threshold are about a classifier"),
        ("onnx:missing.onnx", {"labels": ("a",)}, "cannot be opened as an ONNX network"),
    ],
)
def test_other_texts_are_refused(text: str, details: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse_filters([text], FilterDetails(**details))


def test_texts_hold_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text, absolute in (
        ("words:list.txt", f"words:{tmp_path}/list.txt"),
        ("onnx:a/b.onnx", f"onnx:{tmp_path}/a/b.onnx"),
        ("onnx:/b.onnx", "onnx:/b.onnx"),
        ("command:./look --all x", f"command:{tmp_path}/look --all x"),
        ("command:./look", f"command:{tmp_path}/look"),
        ("command:look ./x", "command:look ./x"),
        ("words:", "words:"),
        ("other:x", "other:x"),
    ):
        assert absolute_filter(text) == absolute
