"""Where pictures go: their names, and what they are made from, which is kept unless it may be replaced."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kontext_trt import Kontext, Masking, Request, RequestError, Sampling
from kontext_trt.runtime.outputs.places import Origins, check_outputs, picture_files

KEPT = "is one of the pictures that it is made from.*, and would be replaced; choose another name, or allow it with"


@pytest.fixture
def folder(tmp_path: Path, picture: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with x.png, links to it and m.png, which is the working directory."""
    picture(128, 128).save(tmp_path / "x.png")
    Image.fromarray(np.full((128, 128), 255, np.uint8)).save(tmp_path / "m.png")
    (tmp_path / "soft.png").symlink_to("x.png")
    os.link(tmp_path / "x.png", tmp_path / "hard.png")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_several_pictures_are_numbered() -> None:
    assert picture_files(Path("a/out.png"), 1) == (Path("a/out.png"),)
    assert picture_files(Path("a/out.png"), 2) == (Path("a/out-1.png"), Path("a/out-2.png"))


@pytest.mark.parametrize("out", ["x.png", "./x.png", "sub/../x.png", "soft.png", "hard.png", "m.png"])
@pytest.mark.parametrize("mask", [Path("m.png"), Masking(mask="m.png")])
def test_inputs_are_not_replaced_unasked(folder: Path, out: str, mask: Any) -> None:
    request = Request(prompt="x", image=["x.png"], mask=mask)
    for path in (Path(out), folder / out):
        with pytest.raises(RequestError, match=KEPT):
            check_outputs(path, request)
        assert check_outputs(path, request, overwrite=True) == (path,)
    assert check_outputs(Path("other.png"), request) == (Path("other.png"),)


def test_the_numbered_names_are_looked_at(folder: Path) -> None:
    (folder / "x.png").rename("x-2.png")
    with (folder / "x-2.png").open("rb") as file:
        for image in ("x-2.png", os.fspath(folder / "x-2.png"), file):
            several = Request(prompt=["a", "b"], image=image, sampling=Sampling(seed=[1, 2]))
            with pytest.raises(RequestError, match=f"x-2.png {KEPT}"):
                check_outputs(Path("x.png"), several)
            one = Request(prompt="a", image=image)
            assert check_outputs(Path("x.png"), one) == (Path("x.png"),)
    (folder / "x-3.png").mkdir()
    with pytest.raises(RequestError, match=r"x-3.png cannot be written: it is a folder"):
        check_outputs(Path("x.png"), Request(prompt=["a", "b", "c"]))


def test_what_is_in_memory_is_no_file(folder: Path) -> None:
    url = "data:image/png;base64,AAAA"
    request = Request(prompt="x", image=[(folder / "x.png").read_bytes(), url, np.zeros((8, 8), np.uint8)])
    assert request.files == ()
    assert Request(prompt="x", image="x.png", mask=[(0, 0, 8, 8)]).files == (folder / "x.png",)


def test_results_and_sessions_keep_them_too(kontext: Kontext, folder: Path) -> None:
    result = kontext.edit("x.png", "blue", mask=folder / "m.png", steps=1, seed=0)
    assert result.files == (folder / "x.png", folder / "m.png")
    before = (folder / "x.png").read_bytes()
    for name in ("x.png", "soft.png", "m.png"):
        with pytest.raises(RequestError, match=KEPT):
            result.save(name)
    assert (folder / "x.png").read_bytes() == before
    result.save("y.png")
    result.save("y.png")
    with kontext.session("x.png") as session:
        session.edit("blue", beside=["y.png"], steps=1, seed=0)
        for name in ("x.png", "y.png"):
            with pytest.raises(RequestError, match=KEPT):
                session.branch().save_image(name)
        session.save_image("y.png", overwrite=True)
    result.save("x.png", overwrite=True)
    assert (folder / "x.png").read_bytes() != before


def test_a_session_that_is_opened_again_keeps_them_too(kontext: Kontext, folder: Path, picture: Any) -> None:
    """Twice, since what is not read again is handed on. Its file names none of them."""
    picture(64, 64).save("y.png")
    with kontext.session("x.png") as session:
        session.edit("blue", beside=["y.png"], mask="m.png", steps=1, seed=0)
        saved = session.save("s.session")
    assert str(folder).encode() not in saved.read_bytes()
    Path("moved").mkdir()
    for name in ("x.png", "y.png"):
        Path(name).rename(f"moved/{name}")
    with kontext.open_session(kontext.open_session(saved).save("again.session")) as session:
        for name in ("moved/x.png", "moved/y.png", "hard.png", "m.png"):
            with pytest.raises(RequestError, match=KEPT):
                session.branch().save_image(name)
        session.save_image("new.png")
        session.save_image("new.png")
        picture(96, 96).save("moved/y.png")
        session.save_image("moved/y.png")
        session.save_image("m.png", overwrite=True)


def test_what_is_no_file_has_no_hash(folder: Path) -> None:
    """Nor is a pipe waited for."""
    os.mkfifo("pipe.png")
    gone = Origins().beside([folder / "pipe.png", folder / "gone.png", folder / "sub", None])
    assert gone.all_hashes() == ()
    known = gone.beside([folder / "x.png"]).all_hashes()
    assert known == gone.beside([folder / "hard.png", folder / "soft.png"]).all_hashes()
    opened = Origins(hashes=frozenset(known))
    assert opened.all_hashes() == known
    for name in ("pipe.png", "gone.png", "sub"):
        opened.check_kept(folder / name, overwrite=False)
    with pytest.raises(RequestError, match=KEPT):
        opened.check_kept(folder / "x.png", overwrite=False)
