"""`edit` with a folder: what it prints, how it ends, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from kontext_trt.cli import making
from kontext_trt.cli.app import app
from kontext_trt.engine.errors import ImageError, OptionError, RequestError


@pytest.fixture
def photos(tmp_path: Path, picture: Callable[..., Image.Image]) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        picture(64, 48).save(folder / name)
    return folder


def edit(bundle: Path, photos: Path, *more: object) -> Result:
    words = ["edit", bundle, "-i", photos, "-p", "make it night", "--steps", 1, *more]
    return CliRunner().invoke(app, list(map(str, words)))


def test_a_folder_is_edited_and_a_second_run_says_what_was_there(bundle_path: Path, photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    first = edit(bundle_path, photos, "-o", out)
    assert first.exit_code == 0, first.output
    assert f"{out / 'a.png'}  seed " in first.stdout
    assert f"{out}: of 2 pictures 2 edited, 0 skipped because their answers are there, 0 failed" in first.stdout
    assert "editing 2 of 2 pictures" in first.stderr
    (photos / "c.png").write_bytes(b"no picture")
    again = edit(bundle_path, photos, "-o", out)
    assert again.exit_code == 1, "one has failed"
    assert "of 3 pictures 0 edited, 2 skipped because their answers are there, 1 failed" in again.stdout
    assert f"{photos / 'c.png'} was not edited: " in again.stderr


def test_graphs_that_the_first_picture_records_serve_the_others(
    bundle_path: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[bool] = []

    def opened(*arguments: Any, graphs: bool, **options: Any) -> Any:
        asked.append(graphs)
        return making.opened(*arguments, graphs=graphs, **options)

    monkeypatch.setattr("kontext_trt.cli.folder.opened", opened)
    assert edit(bundle_path, photos, "-o", tmp_path / "out").exit_code == 0
    assert asked == [True], "one Kontext for all, which records"


def test_the_folder_that_is_made_is_said(bundle_path: Path, photos: Path, tmp_path: Path):
    new = tmp_path / "new"
    assert f"made folder {new}" in edit(bundle_path, photos, "-o", new).stderr
    assert "made folder" not in edit(bundle_path, photos, "-o", new).stderr


def test_json_has_a_row_per_picture(bundle_path: Path, photos: Path, tmp_path: Path):
    (photos / "c.png").write_bytes(b"no picture")
    done = edit(bundle_path, photos, "-o", tmp_path / "out", "--format", "webp", "--json", "-s", 3)
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert (found["made"], found["kept"], found["failed"]) == (2, 0, 1)
    rows = [(Path(row["input"]).name, Path(row["output"]).name, row["status"]) for row in found["pictures"]]
    assert rows == [("a.png", "a.webp", "made"), ("b.png", "b.webp", "made"), ("c.png", "c.webp", "failed")]
    assert [row["seed"] for row in found["pictures"]] == [3, 3, None]


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        (
            ("-o", "out", "--then", "x"),
            OptionError,
            r"--then goes on with one picture, and --image .*photos is a folder",
        ),
        (("-o", "out.png"), OptionError, r"--out is one, too, and out.png is the name of a picture"),
        ((), OptionError, "edited.png is the name of a picture"),
        (("-o", "out", "--box", "0,0,8,8"), RequestError, "a mask must be left out"),
        (("-o", "out", "-p", "x"), RequestError, "several prompts must be left out"),
        (("-o", "out", "-s", 1, "-s", 2), RequestError, "several seeds must be left out"),
        (("-o", "out", "-i", "photos"), RequestError, "further references must be left out"),
        (("-o", "out", "--format", "xyz"), RequestError, r"no picture format has the suffix '\.xyz'"),
    ],
)
def test_what_does_not_go_with_a_folder_is_refused(bundle_path: Path, photos: Path, more, error, message: str):
    done = edit(bundle_path, photos, *more)
    assert isinstance(done.exception, error)
    with pytest.raises(error, match=message):
        raise done.exception


def test_a_folder_beside_a_picture_is_refused(bundle_path: Path, photos: Path, tmp_path: Path):
    done = edit(bundle_path, photos / "a.png", "-i", photos, "-o", tmp_path / "out")
    assert "further references must be left out" in str(done.exception)


def test_a_format_is_of_folders_alone(bundle_path: Path, photos: Path):
    done = edit(bundle_path, photos / "a.png", "--format", "webp")
    assert str(done.exception).startswith("--format is of a folder's answers; of one picture the suffix of --out says")


def test_what_no_run_has_made_is_replaced_if_that_is_asked_for(bundle_path: Path, photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_bytes(b"somebody's own")
    refused = edit(bundle_path, photos, "-o", out)
    assert "a.png would be replaced, and no run over a folder has left it as it is" in str(refused.exception)
    done = edit(bundle_path, photos, "-o", out, "--overwrite")
    assert done.exit_code == 0
    assert "1 of them took the place of what was there, such as answers to another request" in done.stderr
    with Image.open(out / "a.png") as answer:
        assert "kontext-trt" in answer.info


def test_a_folder_without_pictures_is_refused(bundle_path: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    done = edit(bundle_path, tmp_path / "empty", "-o", tmp_path / "out")
    assert isinstance(done.exception, ImageError)
    assert "there is no picture in" in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_an_interrupt_says_that_the_same_command_goes_on(
    bundle_path: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kontext_trt.cli.folder.edit_folder", interrupted)
    done = edit(bundle_path, photos, "-o", tmp_path / "out")
    assert done.exit_code != 0
    assert "is whole, and the same command goes on from there" in done.stderr
