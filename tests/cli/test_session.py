"""Sessions from the command line: what is typed, what is seen, what goes on after a mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from PIL import Image
from typer.testing import CliRunner

from kontext_trt.cli.app import app

FAST = ("--steps", "1", "--seed", "0")


@pytest.fixture
def image_path(tmp_path: Path, picture: Any) -> Path:
    path = tmp_path / "in.png"
    picture(128, 128).save(path)
    return path


def talk(bundle: Path, *arguments: object, lines: str, exit_code: int = 0) -> str:
    """What a session prints, on both streams, for lines that are typed."""
    done = CliRunner().invoke(app, ["session", str(bundle), *map(str, arguments), *FAST], input=lines)
    assert done.exit_code == exit_code, done.output
    return done.output


def test_a_session_is_talked_through(bundle_path: Path, image_path: Path, tmp_path: Path) -> None:
    saved, png = tmp_path / "cat.session", tmp_path / "cat.png"
    lines = ["make it blue", "remove the tree", "/undo", "add a tree", "/history", "/all"]
    lines += [f"/save {png}", f"/save {saved}", "", "/quit", "not read"]
    done = run("session", bundle_path, "-i", image_path, *FAST, lines="\n".join(lines))
    said = done.stdout.splitlines()
    assert said[0] == "1 (of 0) 'make it blue', seed 0, 128x128"
    assert said[1] == "2 (of 1) 'remove the tree', seed 0, 128x128"
    assert said[2] == said[0]
    assert said[3] == "3 (of 1) 'add a tree', seed 0, 128x128"
    assert said[4:6] == [said[0], said[3]]
    assert said[6:9] == [said[0], said[1], said[3]]
    assert said[9:] == [str(png), str(saved)]
    assert "80.0 KiB for this turn, 144.0 KiB in all" in done.stderr
    with Image.open(png) as picture:
        assert [one["prompt"] for one in json.loads(picture.info["kontext-trt"])["chain"]] == ["make it blue"]
    again = talk(bundle_path, "--open", saved, lines="/history\n/redo\n/go 2\n/redo\n")
    assert "there is no turn to do again" in again
    assert again.count("2 (of 1)") == 1


def test_mistakes_are_said_and_it_goes_on(bundle_path: Path, image_path: Path) -> None:
    lines = "/undo\n/fly\n/go far\n/save\n/carry by hand\n/save x.unknown\n/help\nmake it blue\n"
    said = talk(bundle_path, "-i", image_path, lines=lines)
    for words in (
        "there is no turn to undo",
        "there is no /fly; /help lists what there is",
        "/go takes a turn's number, not 'far'",
        "/save takes a file",
        "/carry takes latents or pixels, not 'by hand'",
        "nothing was edited yet",
        "/undo, /redo",
        "1 (of 0) 'make it blue'",
    ):
        assert words in said


def test_pixels_are_carried_if_that_is_said(bundle_path: Path, image_path: Path, tmp_path: Path) -> None:
    talk(bundle_path, "-i", image_path, lines=f"x\n/carry pixels\ny\n/save {tmp_path / 'a.png'}\n")
    with Image.open(tmp_path / "a.png") as picture:
        assert json.loads(picture.info["kontext-trt"])["reference"] == "128x128 -> 128x128 (resize)"


def test_what_gives_way_is_said_and_the_picture_does_not(bundle_path: Path, image_path: Path, tmp_path: Path) -> None:
    new, file = tmp_path / "new" / "a.png", tmp_path / "s.session"
    lines = f"x\n/save {new}\n/save {new}\n/save {file}\n/save {file}\n/save {image_path}\n"
    said = talk(bundle_path, "-i", image_path, lines=lines)
    assert said.count(f"made folder {new.parent}\n") == said.count(f"replaced {new}\n") == 1
    assert said.count(f"replaced {file}\n") == 1
    assert "in.png is one of the pictures that it is made from" in " ".join(said.split())
    said = talk(bundle_path, "--open", file, lines=f"/save {image_path}\n")
    assert "in.png is one of the pictures that it is made from" in " ".join(said.split())
    said = talk(bundle_path, "-i", image_path, "--overwrite", lines=f"x\n/save {image_path}\n")
    assert f"replaced {image_path}\n" in said


def test_lines_of_json_answer_lines(bundle_path: Path, image_path: Path, tmp_path: Path) -> None:
    command = ["session", str(bundle_path), "-i", str(image_path), "--json", *FAST]
    lines = f"x\n/help\n/undo\n/redo\n/all\n/save {tmp_path / 'a.png'}\n"
    done = CliRunner().invoke(app, command, input=lines)
    turn, start, again, turns, saved = map(json.loads, done.stdout.splitlines())
    assert (turn["turn"]["number"], turn["turn"]["request"]["prompt"], turn["turn"]["size"]) == (1, "x", [128, 128])
    assert start == {"turn": None}
    assert again == turn
    assert turns == {"turns": [turn["turn"]]}
    assert saved == {"path": str(tmp_path / "a.png")}


@pytest.mark.parametrize("arguments", [(), ("--image", "x.png", "--open", "x.session")])
def test_it_begins_somewhere(bundle_path: Path, arguments: tuple[str, ...]) -> None:
    done = run("session", bundle_path, *arguments, code=1)
    assert "a session begins with --image, or goes on with --open: give one of them" in done.stderr
