"""Groups of options in a command's signature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from kontext_trt.cli.options import spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Options of a test's command; `name` has to be given."""

    name: Annotated[str, typer.Option(help="What it is called.")]
    width: Annotated[int, typer.Option("--width", "-w", help="Pixels.")] = 3
    tags: Annotated[list[str] | None, typer.Option("--tag", help="Several.")] = None


seen: list[object] = []


@spread
def hang(
    place: Annotated[str, typer.Argument(help="Where.")],
    *,
    frame: Frame,
    straight: Annotated[bool, typer.Option(help="Level.")] = True,
) -> None:
    """Hang a picture."""
    seen.append((place, frame, straight))


app = typer.Typer(add_completion=False)
app.command()(hang)


def test_a_command_gets_its_groups_made_of_what_was_given() -> None:
    seen.clear()
    runner = CliRunner()
    given = ["wall", "--name", "sea", "-w", "7", "--tag", "a", "--tag", "b", "--no-straight"]
    assert runner.invoke(app, given, catch_exceptions=False).exit_code == 0
    assert runner.invoke(app, ["door", "--name", "hill"], catch_exceptions=False).exit_code == 0
    first, second = seen
    assert first == ("wall", Frame(name="sea", width=7, tags=["a", "b"]), False)
    assert second == ("door", Frame(name="hill"), True)


def test_options_stand_where_their_group_stood() -> None:
    command = typer.main.get_command(app)
    names = [parameter.name for parameter in command.params]
    assert names == ["place", "name", "width", "tags", "straight"]
    assert command.params[2].opts == ["--width", "-w"]
    assert command.help == "Hang a picture."


@pytest.mark.parametrize("arguments", [["wall"], ["wall", "--name", "sea", "--width", "wide"]])
def test_a_group_does_not_weaken_an_option(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2
