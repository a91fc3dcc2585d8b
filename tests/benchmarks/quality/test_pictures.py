"""Pictures side by side: what their sheet says, and that pixels stay as they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from kontext_trt.benchmarks.quality.pictures import TIMES, Pair, side_by_side

ONE = Image.new("RGB", (400, 320), (100, 100, 100))
OTHER = Image.new("RGB", (400, 320), (103, 100, 98))
PROMPT = "make it a watercolour " * 30
PAIR = Pair(
    title="fp8 beside bundle",
    asked=(f"prompt: {PROMPT}", "seed 0, 28 steps, 400x320"),
    heads=("bundle", "fp8"),
    pictures=(ONE, OTHER),
    edited=Image.new("L", (50, 50)),
)


def test_heads_and_captions_say_what_each_picture_is():
    layout = side_by_side(PAIR).lay_out()
    assert layout.said == (
        "fp8 beside bundle",
        f"prompt: {PROMPT.strip()}",
        "seed 0, 28 steps, 400x320",
        "the picture that was edited",
        "bundle",
        "fp8",
        f"the second less the first, {TIMES} times as strong; grey where they are equal",
        "PSNR 41.8 dB, SSIM 0.9998",
        "largest difference 3 of 255",
    )
    assert len(layout.texts[1].lines) > 1, "a long prompt wraps"
    assert layout.extent[0] > 4 * 400


def test_pictures_are_in_full_size_and_the_difference_is_signed():
    edited, one, other, difference = (picture for picture, _ in side_by_side(PAIR).lay_out().pictures)
    assert edited.size == (320, 320)
    assert (one.tobytes(), other.tobytes()) == (ONE.tobytes(), OTHER.tobytes())
    assert difference.getpixel((0, 0)) == (128 + 3 * TIMES, 128, 128 - 2 * TIMES)


def test_small_pictures_are_enlarged_by_whole_numbers_and_it_is_said():
    small = replace(PAIR, pictures=(ONE.resize((64, 48)), OTHER.resize((64, 48))), edited=None)
    layout = side_by_side(small).lay_out()
    assert [picture.size for picture, _ in layout.pictures] == [(320, 240)] * 3
    assert "Each pixel is drawn as 5x5." in layout.said
    assert np.asarray(layout.draw()).shape[1] == layout.extent[0]
