"""Wherever the bytes of a picture are: paths, bytes, file objects, data: URLs, and what is refused in words."""

import base64
import io
import os
from array import array
from pathlib import Path
from urllib.parse import quote_from_bytes

import numpy as np
import pytest
from PIL import Image

from kontext_trt.engine.errors import ImageError
from kontext_trt.runtime.inputs import sources
from kontext_trt.runtime.inputs.pictures import check_picture, read_picture

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    return buffer.getvalue()


def in_base64() -> str:
    return base64.b64encode(png()).decode()


class Pipe:
    """Gives what it holds once, and cannot be rewound."""

    def __init__(self, data: object) -> None:
        self.data = data

    def read(self) -> object:
        return self.data


class Unread:
    def read(self) -> bytes:
        raise AssertionError("a check reads nothing")


def at_its_end() -> io.BytesIO:
    buffer = io.BytesIO(png())
    buffer.read()
    return buffer


class TestFileObjects:
    @pytest.mark.parametrize("make", [lambda: Pipe(png()), lambda: Pipe(bytearray(png())), at_its_end])
    def test_they_are_read(self, make):
        assert np.array_equal(np.asarray(read_picture(make())), PIXELS)

    def test_they_are_read_again_for_another_request(self, tmp_path: Path):
        (tmp_path / "a.png").write_bytes(png())
        with (tmp_path / "a.png").open("rb") as file:
            for _ in range(2):
                assert np.array_equal(np.asarray(read_picture(file)), PIXELS)

    def test_a_check_reads_nothing(self):
        check_picture(Unread())

    @pytest.mark.parametrize("read", [check_picture, read_picture])
    def test_text_is_refused(self, tmp_path: Path, read):
        (tmp_path / "a.png").write_bytes(png())
        message = r"picture .*a\.png is a file that is open as text; .*'rb'"
        with (tmp_path / "a.png").open() as file, pytest.raises(ImageError, match=message):
            read(file)
        with pytest.raises(ImageError, match="the picture is a file that is open as text"):
            read(io.StringIO("x"))

    @pytest.mark.parametrize("found", ["text", None])
    def test_what_gives_no_bytes_is_refused(self, found):
        kind = type(found).__name__
        with pytest.raises(ImageError, match=rf"the picture cannot be read: its read\(\) gave {kind}, not bytes"):
            read_picture(Pipe(found))  # pyright: ignore[reportArgumentType]

    def test_what_is_closed_or_fails_is_said(self):
        file = io.BytesIO(png())
        file.close()
        with pytest.raises(ImageError, match="the picture cannot be read: I/O operation on closed file"):
            read_picture(file)
        with pytest.raises(ImageError, match="the picture cannot be read: a check reads nothing"):
            read_picture(Unread())

    def test_what_is_empty_is_said(self):
        with pytest.raises(ImageError, match=r"the picture is empty \(0 bytes\)"):
            read_picture(io.BytesIO())

    def test_a_name_is_quoted(self, tmp_path: Path):
        (tmp_path / "notes.png").write_text("hello")
        with (tmp_path / "notes.png").open("rb") as file, pytest.raises(ImageError, match=r"notes\.png is not a pic"):
            read_picture(file)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(array("B", data))])
def test_bytes_of_every_kind(kind):
    assert np.array_equal(np.asarray(read_picture(kind(png()))), PIXELS)


def test_a_path_of_bytes(tmp_path: Path):
    class Entry(os.PathLike):
        def __fspath__(self) -> bytes:
            return os.fsencode(tmp_path / "a.png")

    (tmp_path / "a.png").write_bytes(png())
    assert np.array_equal(np.asarray(read_picture(Entry())), PIXELS)


class TestDataUrls:
    @pytest.mark.parametrize(
        "url",
        [
            f"data:image/png;base64,{in_base64()}",
            f"DATA:;BASE64,{in_base64()}",
            f" data:image/png;name=a;base64,{in_base64().rstrip('=')}\n",
            f"data:image/png;base64,{quote_from_bytes(in_base64().encode(), safe='')}",
            f"data:,{quote_from_bytes(png())}",
        ],
    )
    def test_they_are_read(self, url: str):
        check_picture(url)
        assert np.array_equal(np.asarray(read_picture(url)), PIXELS)

    def test_lines_of_base64(self):
        lines = base64.encodebytes(png()).decode()
        assert np.array_equal(np.asarray(read_picture(f"data:image/png;base64,{lines}")), PIXELS)

    @pytest.mark.parametrize("text", ["a", "ab*d", "\u00e9abc"])
    def test_what_is_not_in_base64_is_refused(self, text: str):
        with pytest.raises(ImageError, match=r"the picture is a data: URL that is not in base64 as it says \("):
            read_picture(f"data:image/png;base64,{text}")

    def test_what_is_empty_or_no_picture_is_said_without_the_url(self):
        with pytest.raises(ImageError, match=r"^the picture is empty"):
            read_picture("data:image/png;base64,")
        with pytest.raises(ImageError, match=r"^the picture is not a picture in a format"):
            read_picture("data:,hello")

    def test_no_comma(self):
        with pytest.raises(ImageError, match="the picture is a data: URL without a comma; it must be"):
            check_picture("data:image/png;base64")

    def test_too_long(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(sources, "MAX_URL_CHARACTERS", 1000)
        with pytest.raises(ImageError, match="the picture is a data: URL of 1,006 characters; up to 1,000 are"):
            check_picture(f"data:,{'a' * 1000}")


@pytest.mark.parametrize("scheme", ["http", "HTTPS", "ftp", "s3", "gs"])
def test_nothing_is_fetched_and_no_secret_is_quoted(scheme: str):
    message = rf"the picture is an address \({scheme.lower()}://...\), and nothing is fetched: download it"
    with pytest.raises(ImageError, match=message) as caught:
        check_picture(f"{scheme}://user:secret@host/cat.png?key=secret")
    assert "secret" not in str(caught.value)


def test_an_address_that_became_a_path_is_one_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As the command line makes of its arguments."""
    with pytest.raises(
        ImageError, match=r"the picture is an address \(https://...\), and nothing is fetched: download"
    ):
        check_picture(Path("https://host/cat.png"))
    (tmp_path / "https:/host").mkdir(parents=True)
    (tmp_path / "https:/host/cat.png").touch()
    monkeypatch.chdir(tmp_path)
    check_picture(Path("https://host/cat.png"))  # a file of that name is one


def test_a_file_s_address_is_a_path_to_give():
    with pytest.raises(ImageError, match=r"an address \(file://...\), and nothing is fetched: give its path"):
        check_picture("file:///tmp/cat.png")


def test_base64_that_was_taken_for_a_path_is_not_quoted_whole():
    with pytest.raises(ImageError, match="cannot be read: File name too long") as caught:
        read_picture("iVBORw0KGgo" * 1000)
    assert len(str(caught.value)) < 400
