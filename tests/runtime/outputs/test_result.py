"""What a request made: pictures written with what made them, and places that cannot be written."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kontext_trt import Kontext, RequestError
from kontext_trt.runtime.outputs.result import check_output


def test_png_carries_request_and_fingerprint(kontext: Kontext, picture, tmp_path: Path):
    result = kontext.edit(picture(96, 192), "mach es blau, größer", steps=1, seed=9)
    (path,) = result.save(tmp_path / "new" / "out.png")
    with Image.open(path) as image:
        image.load()
        request = json.loads(image.text["kontext-trt"])
        assert np.array_equal(np.asarray(image), np.asarray(result.image))
    assert request["prompt"] == "mach es blau, größer"
    assert (request["seed"], request["steps"], request["guidance"]) == (9, 1, 2.5)
    assert (request["width"], request["height"]) == (96, 192)
    assert request["bundle"] == kontext.bundle.fingerprint


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif", ".tif"])
def test_other_formats_carry_it_in_exif(kontext: Kontext, tmp_path: Path, suffix: str):
    (path,) = kontext.generate("größer, 猫", steps=1, seed=1, size=(32, 32)).save(tmp_path / f"out{suffix}")
    with Image.open(path) as image:
        request = json.loads(image.getexif()[0x010E])
    assert (request["prompt"], request["seed"]) == ("größer, 猫", 1)


@pytest.mark.parametrize("suffix", [".gif", ".jp2"])
def test_formats_without_exif_carry_it_as_a_comment(kontext: Kontext, tmp_path: Path, suffix: str):
    result = kontext.generate("ein grüner Hund", steps=1, seed=0, size=(32, 32))
    result.save(tmp_path / f"out{suffix}")
    with Image.open(tmp_path / f"out{suffix}") as image:
        assert json.loads(image.info["comment"]) == result.request(result.outputs[0])


def test_a_format_that_holds_no_text_is_said(kontext: Kontext, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    kontext.generate("x", steps=1, seed=0, size=(32, 32)).save(tmp_path / "out.bmp")
    (message,) = caplog.messages
    assert "out.bmp: BMP holds no text, so the request is left out; .png and .webp hold it" in message


def test_several_pictures_are_numbered(kontext: Kontext, tmp_path: Path):
    result = kontext.generate("x", steps=1, seed=[1, 2], size=(32, 32))
    assert [path.name for path in result.save(tmp_path / "out.png")] == ["out-1.png", "out-2.png"]
    with pytest.raises(RequestError, match="made 2 pictures"):
        _ = result.image


@pytest.mark.filterwarnings("ignore::kontext_trt.PromptCutWarning")
def test_request_too_long_for_jpeg_is_left_out_with_a_warning(kontext: Kontext, tmp_path: Path, caplog):
    result = kontext.generate("x" * 70_000, steps=1, seed=1, size=(32, 32))
    for suffix in (".jpg", ".webp"):
        result.save(tmp_path / f"out{suffix}")
    (message,) = (record.message for record in caplog.records if record.name.endswith("picture_file"))
    assert "out.jpg: the request is too long for a JPEG, and is left out" in message
    with Image.open(tmp_path / "out.jpg") as image:
        assert 0x010E not in image.getexif()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file/out.png", "out.png cannot be written: .*exists.*; choose another place"),
        ("/proc/nowhere/out.png", "out.png cannot be written: .*; choose another place"),
        ("a\0b/out.png", "cannot be written: .*null"),
        (f"{'x' * 252}.png", "cannot be written: .*too long"),
        ("folder.png", "folder.png cannot be written: it is a folder"),
        ("out.xbm", "Pillow writes no colour picture as XBM; use .png, .jpg or .webp"),
        ("out.h5", "Pillow writes no colour picture as HDF5; use .png, .jpg or .webp"),
    ],
)
def test_place_that_cannot_be_written_is_refused(tmp_path: Path, name: str, message: str):
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(RequestError, match=message):
        check_output(tmp_path / name)
    assert {entry.name for entry in tmp_path.iterdir()} == {"file", "folder.png"}


def test_trying_a_place_leaves_nothing(tmp_path: Path):
    (tmp_path / "a").mkdir()
    assert check_output(tmp_path / "a" / "b" / "c" / "out.JPG") == "JPEG"
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.parametrize("name", ["out.txt", "out"])
def test_unknown_format_is_refused_and_nothing_written(kontext: Kontext, tmp_path: Path, name: str):
    with pytest.raises(RequestError, match="no picture format has the suffix"):
        kontext.generate("x", steps=1, seed=1, size=(32, 32)).save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
