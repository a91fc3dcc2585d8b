"""Filters from the command line: what is refused, what is said, and that nothing is written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from command_line import run
from PIL import Image
from typer.testing import CliRunner

from kontext_trt.cli.app import app
from kontext_trt.engine.errors import ContentRefused, OptionError

FAST = ("--steps", "1", "--seed", "0")


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text("weapon\n")
    return path


def test_a_refused_prompt_ends_the_command(bundle_path: Path, words: Path, tmp_path: Path) -> None:
    asked = ("generate", bundle_path, *FAST, "--out", tmp_path / "x.png", "--filter", f"words:{words}")
    done = run(*asked, "-p", "a WEAPON", code=1)
    assert "error: the prompt was refused by the filter 'words.txt': it holds a word of the list" in done.stderr
    assert not (tmp_path / "x.png").exists()


def test_several_filters_are_asked_in_turn(bundle_path: Path, words: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import json, sys\nsys.exit('output' in json.loads(sys.stdin.buffer.readline())['stage'])\n")
    filters = ("--filter", f"words:{words}", "--filter", f"command:{sys.executable} -I {program}")
    command = ["generate", bundle_path, *FAST, "--out", tmp_path / "x.png", "-p", "a cat", *filters]
    done = CliRunner().invoke(app, [*map(str, command)])
    assert isinstance(done.exception, ContentRefused)
    assert str(done.exception).startswith("the output picture was refused by the filter 'python")
    assert not (tmp_path / "x.png").exists()


@pytest.mark.check
def test_a_session_goes_on_after_a_refusal(bundle_path: Path, words: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "in.png")
    command = ["session", bundle_path, "-i", tmp_path / "in.png", *FAST, "--filter", f"words:{words}"]
    done = CliRunner().invoke(app, [*map(str, command)], input="a weapon\nmake it blue\n/history\n")
    assert "the prompt was refused by the filter 'words.txt'" in done.output
    assert "1 (of 0) 'make it blue'" in done.output
    assert "weapon'" not in done.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--filter", "words"], "a filter is words:FILE, onnx:PATH"),
        (["--filter-labels", " , "], "--filter-labels names no label"),
        (["--filter-threshold", "0.5"], "labels and a threshold are about a classifier"),
        (
            ["--filter", "onnx:no.onnx", "--filter-labels", "a", "--filter-threshold", "2"],
            "a classifier cannot be used",
        ),
    ],
)
def test_filters_that_are_none_are_refused_before_anything_is_opened(options: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["generate", "no-bundle", "-p", "x", *options])
    assert isinstance(done.exception, OptionError)
    assert message in str(done.exception)
