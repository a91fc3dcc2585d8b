"""References: what may be one, latents that are carried, pictures that are stitched, and the tokens that all cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kontext_trt import ImageError, Kontext, Latents, Request, RequestError, Sampling
from kontext_trt.engine.bundle.bundle import Bundle
from kontext_trt.runtime.inputs.prepared import Tokens, prepare
from kontext_trt.runtime.inputs.references import (
    MAX_REFERENCES,
    Reference,
    ReferenceMethod,
    each_source,
    parse_method,
    stitch,
)

SIZE = (96, 192)


def tokens_of(size: tuple[int, int] = SIZE, channels: int = 64) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((size[0] * size[1] // 256, channels))


def test_latents_are_kept_as_float32_and_in_order() -> None:
    given = tokens_of()
    for tokens in (given, np.asfortranarray(given), given.astype(np.float16)):
        latents = Latents(tokens=tokens, size=(np.int32(96), 192))
        assert (latents.tokens.dtype, latents.tokens.flags.c_contiguous) == (np.float32, True)
        np.testing.assert_array_equal(latents.tokens, tokens.astype(np.float32))
    assert [type(side) for side in latents.size] == [int, int]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"size": (100, 192)}, "size 100x192 is not possible"),
        ({"tokens": tokens_of()[:-1]}, r"latents of 96x192 are a float array \(72, channels\), not float64 \(71, 64\)"),
        ({"tokens": tokens_of()[None]}, r"not float64 \(1, 72, 64\)"),
        ({"tokens": tokens_of().astype(np.int32)}, r"not int32 \(72, 64\)"),
        ({"tokens": tokens_of().tolist()}, "not list"),
        ({"tokens": np.where(np.arange(64) == 3, np.nan, tokens_of())}, "latents must be finite in float32"),
        ({"tokens": 1e300 * tokens_of()}, "these have NaN or infinity"),
        ({"image": Image.new("RGB", (192, 96))}, "latents of 96x192 do not decode to a picture of 192x96"),
        ({"image": Image.new("RGBA", SIZE)}, "the picture of latents is a PIL image in mode RGB, not RGBA"),
        ({"image": "picture.png"}, "the picture of latents is a PIL image in mode RGB, not str"),
    ],
)
def test_what_are_no_latents_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        Latents(**{"tokens": tokens_of(), "size": SIZE} | fields)


def test_latents_of_another_model_are_refused(kontext: Kontext) -> None:
    latents = Latents(tokens=tokens_of(channels=128), size=SIZE)
    with pytest.raises(RequestError, match="latents of 128 channels are of another model: this one's have 64"):
        kontext.edit(latents, "x", steps=1)


def test_latents_come_as_they_are() -> None:
    latents = Latents(tokens=tokens_of(), size=SIZE)
    reference = Reference.carried(latents, 64)
    assert reference.latents is latents.tokens
    assert (reference.grid, reference.placement.size, reference.placement.stretch) == ((12, 6), SIZE, 1)
    assert reference.placement.describe() == "96x192, latents of an earlier result"


def test_a_method_is_a_word() -> None:
    assert [parse_method(one) for one in ("offset", "index", ReferenceMethod.STITCH)] == list(ReferenceMethod)
    with pytest.raises(RequestError, match="references must be one of offset, index, stitch, not 'beside'"):
        Request(prompt="x", references="beside")
    with pytest.raises(RequestError, match="references says how several pictures lie, offset, index or stitch"):
        Request(prompt="x", references=["a.png"])  # pyright: ignore[reportArgumentType]


def test_sources_are_none_one_or_several() -> None:
    image = Image.new("RGB", SIZE)
    assert each_source(None) == ()
    assert each_source(image) == each_source([image]) == (image,)
    assert each_source((image, "a.png")) == (image, "a.png")
    array = np.zeros((3, 32, 3), np.uint8)  # one picture, not three
    assert len(each_source(array)) == 1


@pytest.mark.parametrize(
    ("sources", "error", "words"),
    [
        ([], RequestError, "a list of references must hold one at least; without any it is text to image: leave it"),
        (["a.png"] * (MAX_REFERENCES + 1), RequestError, "a request takes up to 16 references, not 17"),
        (["a.png", 3], ImageError, "a picture must be a path.* not int"),
        (["a.png", None], ImageError, "a picture must be a path.* not NoneType"),
        ([["a.png"]], ImageError, "a picture must be a path.* not list"),
    ],
)
def test_what_are_no_references_is_refused(sources: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Request(prompt="x", image=sources)


def test_what_is_about_a_picture_needs_one() -> None:
    with pytest.raises(RequestError, match="a mask is about a picture that is edited, and text to image has none"):
        Request(prompt="x", mask=(0, 0, 8, 8))
    with pytest.raises(RequestError, match="a strength below 1 is about a picture that is edited"):
        Request(prompt="x", sampling=Sampling(strength=0.5))


@pytest.mark.parametrize("strength", [0, -0.1, 1.01, float("nan"), "1", None])
def test_strength_is_a_share(strength: Any) -> None:
    with pytest.raises(RequestError, match="strength must be a number above 0, up to 1, not"):
        Sampling(strength=strength)


def test_a_strength_that_leaves_no_step_is_refused(bundle: Bundle, picture: Callable) -> None:
    """It takes less than float64 tells from 0 beside the number of steps; the least of others takes one step."""
    model = bundle.manifest.model
    request = Request(prompt="x", image=picture(*SIZE), sampling=Sampling(steps=4, strength=1e-20))
    with pytest.raises(RequestError, match=r"a strength of 1e-20 leaves less than one of 4 steps; give at least 0\.25"):
        prepare(request, model)
    for strength, taken in ((0.25, 1), (0.26, 2), (0.75, 3), (1.0, 4)):
        request = Request(prompt="x", image=picture(*SIZE), sampling=Sampling(steps=4, strength=strength))
        assert prepare(request, model).num_steps == taken


def test_a_size_beside_a_strength_is_the_reference_s(bundle: Bundle, picture: Callable) -> None:
    sampling = Sampling(strength=0.5, size=(128, 128))
    with pytest.raises(RequestError, match="the picture has its reference's size 96x192, not 128x128; leave the size"):
        prepare(Request(prompt="x", image=picture(*SIZE), sampling=sampling), bundle.manifest.model)


def test_the_first_reference_decides_the_size(bundle: Bundle, picture: Callable) -> None:
    request = Request(prompt="x", image=[picture(200, 400), picture(128, 128)])
    prepared = prepare(request, bundle.manifest.model)
    assert prepared.size == (96, 192)
    assert [reference.grid for reference in prepared.references] == [(12, 6), (8, 8)]


def test_stitched_pictures_have_the_height_of_the_first(picture: Callable) -> None:
    pictures = [picture(40, 30), picture(10, 60, seed=1), picture(30, 30, seed=2)]
    made = np.asarray(stitch(pictures))
    assert made.shape == (30, 40 + 5 + 30, 3)
    np.testing.assert_array_equal(made[:, :40], np.asarray(pictures[0]))
    np.testing.assert_array_equal(made[:, 40:45], np.asarray(pictures[1].resize((5, 30), Image.Resampling.LANCZOS)))
    np.testing.assert_array_equal(made[:, 45:], np.asarray(pictures[2]))
    assert stitch([picture(8, 8), picture(1, 900)]).size == (9, 8)


def test_a_flat_picture_does_not_make_them_endlessly_wide() -> None:
    """8000 x 2 pixels at a height of 4000 are 16 million in a row: 192 GB."""
    with pytest.raises(RequestError, match="these 2 pictures are 16,000,010x4000; sides of up to 16384 px are poss"):
        stitch([Image.new("RGB", (10, 4000)), Image.new("RGB", (8000, 2))])
    assert stitch([Image.new("RGB", (8192, 1))] * 2).size == (16384, 1)


@pytest.mark.parametrize("with_mask", [True, False])
def test_only_pictures_without_a_mask_are_stitched(kontext: Kontext, picture: Callable, with_mask: bool) -> None:
    other = picture(*SIZE) if with_mask else Latents(tokens=tokens_of(), size=SIZE)
    with pytest.raises(RequestError, match="stitched as pictures, without a mask; latents and masked ones go with off"):
        kontext.edit([picture(*SIZE), other], "x", references="stitch", mask=(0, 0, 9, 9) if with_mask else None)


def test_a_stitched_reference_is_said_to_be_one(kontext: Kontext, picture: Callable) -> None:
    result = kontext.edit([picture(*SIZE)] * 2, "x", references="stitch", steps=1, seed=0)
    request = result.request(result.outputs[0])
    assert (request["reference"], request["references"]) == ("192x192 -> 128x128 (resize)", "stitch")
    several = kontext.edit([picture(*SIZE)] * 2, "x", steps=1, seed=0)
    request = several.request(several.outputs[0])
    assert (request["reference"], request["references"]) == (["96x192 -> 96x192 (resize)"] * 2, "offset")
    alone = kontext.edit(picture(*SIZE), "x", steps=1, seed=0)
    assert "references" not in alone.request(alone.outputs[0])


def test_tokens_are_said_one_by_one_and_together(
    kontext: Kontext, picture: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = Tokens(target=4096, references=(4096, 4050), text=512)
    words = "4,096 of the picture + 4,096 of a reference + 4,050 of a reference + 512 of text = 12,754 tokens"
    assert (tokens.total, tokens.describe()) == (12754, words)
    assert Tokens(target=64, references=(), text=512).describe() == "64 of the picture + 512 of text = 576 tokens"
    with caplog.at_level("INFO", logger="kontext_trt"):
        result = kontext.edit([picture(*SIZE), picture(128, 128)], "x", steps=1, seed=0)
    assert result.tokens == Tokens(target=72, references=(72, 64), text=512)
    assert result.tokens.describe() in caplog.messages
