"""Whatever a user calls a picture: upright RGB, or an error that says what is wrong."""

import io
from pathlib import Path

import numpy as np
import pytest
from icc import ADOBE_GAMMA, ADOBE_RGB, in_srgb, profile
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from kontext_trt.engine.errors import ImageError
from kontext_trt.runtime.inputs.pictures import read_colours_and_alpha, read_picture


def encoded(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def test_exif_rotation_is_undone():
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20] = [255, 0, 0]  # the left half, as stored
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    image = read_picture(encoded(Image.fromarray(pixels), exif=exif))
    assert image.size == (20, 40)
    assert image.getpixel((10, 5)) == (255, 0, 0)  # left became top
    assert image.getpixel((10, 35)) == (0, 0, 0)


def test_transparency_lies_over_white():
    image = read_picture(encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 128))))
    red, green, blue = image.getpixel((0, 0))
    assert (red, image.mode) == (255, "RGB")
    assert green == blue == pytest.approx(127, abs=1)


def test_palette_with_transparency():
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 255] + [0] * 765)
    assert read_picture(encoded(image, transparency=0)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("mode", "value", "expected"), [("L", 77, 77), ("1", 1, 255), ("I;16", 77 * 257, 77), ("I", 77 * 257, 77)]
)
def test_grey(mode: str, value: int, expected: int):
    image = Image.new(mode, (8, 8), value)
    assert read_picture(image).getpixel((3, 3)) == (expected,) * 3


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("lime", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_picture(data).getpixel((0, 0)) == (0, 255, 0)


def test_arrays_and_images_and_paths(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for picture in (pixels, Image.fromarray(pixels), tmp_path / "a.png", str(tmp_path / "a.png")):
        np.testing.assert_array_equal(np.asarray(read_picture(picture)), pixels)
    assert read_picture(pixels[:, :, 0]).mode == "RGB"


def test_not_a_picture(tmp_path: Path):
    file = tmp_path / "notes.png"
    file.write_text("hello, I am text")
    with pytest.raises(ImageError, match=r"notes\.png is not a picture in a format"):
        read_picture(file)


def test_empty_file(tmp_path: Path):
    file = tmp_path / "empty.png"
    file.touch()
    with pytest.raises(ImageError, match=r"empty\.png is empty \(0 bytes\)"):
        read_picture(file)


def test_missing_file(tmp_path: Path):
    with pytest.raises(ImageError, match=r"gone\.png cannot be read: No such file"):
        read_picture(tmp_path / "gone.png")


def test_name_that_no_file_can_have():
    with pytest.raises(ImageError, match=r"cannot be read: .*null"):
        read_picture("a\0b")


@pytest.mark.parametrize("picture", [None, 3, ["a.png"]])
def test_other_types_are_refused(picture):
    message = f"a picture must be a path, the bytes of an encoded file.*, not {type(picture).__name__}"
    with pytest.raises(ImageError, match=message):
        read_picture(picture)


def test_alpha_is_turned_as_the_colours_are():
    pixels = np.zeros((20, 40, 4), np.uint8)
    pixels[:, :20, 3] = 255  # the left half, as stored
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    colours, alpha = read_colours_and_alpha(encoded(Image.fromarray(pixels), exif=exif), "picture")
    assert alpha is not None
    assert (colours.size, alpha.size, alpha.mode) == ((20, 40), (20, 40), "L")
    assert (alpha.getpixel((10, 5)), alpha.getpixel((10, 35))) == (255, 0)


def test_no_transparency_has_no_alpha():
    assert read_colours_and_alpha(Image.new("RGB", (4, 4)), "picture")[1] is None
    assert read_colours_and_alpha(Image.new("I;16", (4, 4)), "picture")[1] is None


def test_header_that_pillow_refuses():
    text = PngInfo()
    text.add_text("comment", "x" * (2 << 20), zip=True)
    with pytest.raises(ImageError, match=r"the picture cannot be decoded.*too large"):
        read_picture(encoded(Image.new("RGB", (8, 8)), pnginfo=text))


def test_truncated_file():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG")
    with pytest.raises(ImageError, match="may be cut short"):
        read_picture(data[: len(data) // 2])


def test_thirty_thousand_pixels_wide():
    with pytest.raises(ImageError, match="the picture is 30000x2; sides of 1 to 16384 px"):
        read_picture(encoded(Image.new("RGB", (30_000, 2))))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bomb():
    with pytest.raises(ImageError, match="too large"):
        read_picture(encoded(Image.new("1", (30_000, 20_000))))


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8)]
)
def test_arrays_of_another_kind(array: np.ndarray):
    with pytest.raises(ImageError, match="an array must be uint8"):
        read_picture(array)


class TestColours:
    COLOURS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)

    def test_a_profile_is_applied(self):
        """A saturated green of Adobe RGB is far from the same numbers in sRGB."""
        data = encoded(Image.fromarray(self.COLOURS), icc_profile=profile(ADOBE_RGB, ADOBE_GAMMA))
        found = np.asarray(read_picture(data)).astype(float)
        expected = in_srgb(self.COLOURS, ADOBE_RGB, ADOBE_GAMMA)
        assert np.abs(found - expected).max() < 2
        assert np.abs(found - self.COLOURS).max() > 50

    def test_sRGB_stays_as_it_is(self):  # noqa: N802
        own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        data = encoded(Image.fromarray(self.COLOURS), icc_profile=own)
        assert np.array_equal(np.asarray(read_picture(data)), self.COLOURS)

    def test_transparency_and_a_profile(self):
        alpha = np.full((32, 32, 1), 255, np.uint8)
        alpha[:16] = 0
        rgba = Image.fromarray(np.concatenate([self.COLOURS, alpha], axis=2))
        data = encoded(rgba, icc_profile=profile(ADOBE_RGB, ADOBE_GAMMA))
        found = np.asarray(read_picture(data))
        assert (found[:16] == 255).all()
        expected = in_srgb(self.COLOURS, ADOBE_RGB, ADOBE_GAMMA)
        assert np.abs(found[16:] - expected[16:]).max() < 2

    def test_a_palette_and_a_profile(self):
        palette = Image.fromarray(self.COLOURS).convert("P", palette=Image.Palette.ADAPTIVE)
        before = np.asarray(palette.convert("RGB"))
        found = np.asarray(read_picture(encoded(palette, icc_profile=profile(ADOBE_RGB, ADOBE_GAMMA))))
        assert np.abs(found - in_srgb(before, ADOBE_RGB, ADOBE_GAMMA)).max() < 2

    @pytest.mark.parametrize("data", [b"", b"not a profile", bytes(200)])
    def test_a_damaged_profile_is_said_and_left_out(self, caplog: pytest.LogCaptureFixture, data: bytes):
        found = np.asarray(read_picture(encoded(Image.fromarray(self.COLOURS), icc_profile=data)))
        assert np.array_equal(found, self.COLOURS)
        assert bool(data) == ("has a colour profile that does not fit it" in caplog.text)

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            (np.array([[0, 32768, 65535]], np.uint16), [0, 128, 255]),
            (np.array([[0, 300, 65535]], np.int32), [0, 1, 255]),
            (np.array([[0, 128, 255]], np.int32), [0, 128, 255]),
            (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
            (np.array([[0.0, 127.6, 255.0]], np.float32), [0, 128, 255]),
            (np.array([[0.0, 32768.0, 65535.0]], np.float32), [0, 128, 255]),
        ],
    )
    def test_grey_of_other_depths_is_read_by_its_range(self, values: np.ndarray, expected: list[int]):
        image = Image.fromarray(values)
        assert image.mode in ("I;16", "I", "F")
        assert np.asarray(read_picture(image))[0].tolist() == [[value] * 3 for value in expected]

    @pytest.mark.parametrize("values", [[[0, -1]], [[0, 65536]], [[0.0, float("nan")]], [[0.0, float("inf")]]])
    def test_a_range_that_says_nothing_is_refused(self, values):
        array = np.array(values, np.float32 if isinstance(values[0][0], float) else np.int32)
        with pytest.raises(ImageError, match=r"has grey values from .*; 0 to 1, 255 and 65535 are known"):
            read_picture(Image.fromarray(array))

    def test_a_dark_picture_of_16_bits_stays_dark(self):
        """Its range alone would be taken for 8 bits."""
        data = encoded(Image.fromarray(np.full((4, 4), 255, np.uint16)))
        assert np.asarray(read_picture(data)).max() <= 1
