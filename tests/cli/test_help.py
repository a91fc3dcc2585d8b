"""`--help` names every option whole: in pipes in a line each, on terminals of any width."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from kontext_trt.cli import help as cli_help
from kontext_trt.cli.app import app
from kontext_trt.cli.help import PANEL_COLUMNS


def commands_of(group: Any, *before: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield before, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands_of(command, *before, name)


def said(words: tuple[str, ...], columns: int = 80) -> str:
    done = CliRunner().invoke(app, [*words, "--help"], catch_exceptions=False, env={"COLUMNS": str(columns)})
    assert done.exit_code == 0
    return done.output


def test_in_pipes_each_option_has_a_line() -> None:
    for words, command in commands_of(typer.main.get_command(app)):
        lines = said(words, 40).splitlines()
        for one in command.params:
            if one.param_type_name == "option":
                name, text = max(one.opts, key=len), " ".join((one.help or "").split())
                assert [line for line in lines if f" {name} " in f"{line} " and text in line], (words, name)
    with_escape = [line for line in said(()).splitlines() if "\\" in line]
    assert with_escape == []


@pytest.mark.parametrize("columns", [40, 80, PANEL_COLUMNS])
def test_no_name_is_cut_on_a_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_help, "columns_of_output", lambda: columns)
    for words, command in commands_of(typer.main.get_command(app)):
        text = said(words, columns)
        assert "…" not in text, words
        assert ("╭" in text) == (columns >= PANEL_COLUMNS)
        for one in command.params:
            if one.param_type_name == "option":
                assert max(one.opts, key=len) in text, words
