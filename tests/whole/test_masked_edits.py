"""Edits with a mask, whole: what is not marked keeps its bytes, whoever runs it and however it is marked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kontext_trt import Bundle, BundleError, Kontext
from kontext_trt.runtime.executors.onnxruntime_cpu import OnnxRuntimeCpu

FORMS = ("array", "picture", "alpha", "box", "boxes")
CASES = 50


@dataclass(frozen=True, kw_only=True)
class Case:
    """A picture, and a mask in one of its forms with what it marks."""

    image: Image.Image
    mask: Any
    marked: np.ndarray
    keywords: dict[str, Any]


def boxes_in(draw: np.random.Generator, size: tuple[int, int], count: int, inner: bool) -> list[tuple[int, ...]]:
    """Boxes in a picture; `inner` for its middle half alone, which no fit cuts."""
    found = []
    for _ in range(count):
        sides = []
        for extent in size:
            first, last = (extent // 4, 3 * extent // 4) if inner else (0, extent)
            start = int(draw.integers(first, last - 1))
            sides.append((start, int(draw.integers(start + 1, last + 1))))
        (left, right), (top, bottom) = sides
        found.append((left, top, right, bottom))
    return found


def random_case(number: int, picture: Callable) -> Case:
    draw = np.random.default_rng(number)
    form, fit = FORMS[number % 5], ("resize", "pad", "crop")[number % 3]
    width = int(draw.integers(40, 260))
    size = width, int(np.clip(draw.integers(40, 260), width / 1.9, 1.9 * width))
    image = picture(*size, seed=number)
    boxes = boxes_in(draw, size, 3 if form == "boxes" else 1, inner=fit == "crop")
    marked = np.zeros(size[::-1], bool)
    for left, top, right, bottom in boxes:
        marked[top:bottom, left:right] = True
    if form in ("array", "picture", "alpha"):  # a ragged one
        marked &= draw.random(marked.shape) < 0.7
        marked[boxes[0][1], boxes[0][0]] = True
    alpha = Image.fromarray(np.where(marked, 0, 255).astype(np.uint8))
    transparent = Image.merge("RGBA", (*image.split(), alpha))
    mask = {
        "array": marked,
        "picture": Image.fromarray(marked),
        "alpha": transparent,
        "box": boxes[0],
        "boxes": boxes,
    }[form]
    keywords = {
        "fit": fit,
        "crop": ("none", "mask")[int(draw.integers(2))],
        "feather": int(draw.choice([0, 4, 16])),
        "margin": [None, 0, 20][int(draw.integers(3))],
    }
    return Case(image=image, mask=mask, marked=marked, keywords=keywords)


@pytest.mark.parametrize(
    "number", [pytest.param(n, marks=() if n < CASES // 5 else pytest.mark.check) for n in range(CASES)]
)
def test_no_byte_differs_outside_and_some_do_inside(kontext: Kontext, picture: Callable, number: int) -> None:
    case = random_case(number, picture)
    result = kontext.edit(case.image, "x", mask=case.mask, seed=number, steps=1, **case.keywords)
    assert (result.image.size, result.image.mode) == (case.image.size, "RGB")
    differs = (np.asarray(result.image) != np.asarray(case.image)).any(axis=2)
    assert not differs[~case.marked].any()
    assert differs[case.marked].any()
    assert result.mask is not None
    assert result.mask.startswith(f"{100 * case.marked.mean():.1f} % of {case.image.width}x{case.image.height}")


def test_the_cases_are_of_every_kind(picture: Callable) -> None:
    """Among the ten of the default suite, too."""
    for count in (CASES // 5, CASES):
        cases = [random_case(number, picture) for number in range(count)]
        assert {case.keywords["crop"] for case in cases} == {"none", "mask"}
        assert {case.keywords["fit"] for case in cases} == {"resize", "pad", "crop"}
        assert {type(case.mask) for case in cases} == {np.ndarray, Image.Image, tuple, list}
        assert all(case.marked.any() and not case.marked.all() for case in cases)


def test_a_batch_is_its_requests_one_by_one(kontext: Kontext, picture: Callable) -> None:
    image = picture(144, 112)
    keywords: dict[str, Any] = {"mask": (20, 30, 90, 80), "seed": 3, "steps": 2}
    together = kontext.edit(image, ["a", "b"], **keywords)
    assert together.outputs[0].image.tobytes() != together.outputs[1].image.tobytes()
    for output in together.outputs:
        alone = kontext.edit(image, output.prompt, **keywords)
        np.testing.assert_allclose(output.latents, alone.outputs[0].latents, atol=2e-5, rtol=0)
        apart = np.abs(np.asarray(output.image, np.int16) - np.asarray(alone.image, np.int16))
        assert apart.max() <= 1  # a value that lies between two bytes


def test_latents_outside_the_mask_are_the_reference_s(kontext: Kontext, picture: Callable) -> None:
    image = picture(128, 128)
    result = kontext.edit(image, "x", mask=(32, 32, 96, 64), seed=1, steps=2)
    (encoded,) = kontext.executor.run("vae_encoder", {"image": np.asarray(image)[None]})["reference"]
    inside = np.zeros((8, 8), bool)
    inside[2:4, 2:6] = True
    kept = (result.outputs[0].latents == encoded).all(axis=1).reshape(8, 8)
    np.testing.assert_array_equal(kept, ~inside)


def test_the_first_of_several_references_is_the_one_that_is_kept(kontext: Kontext, picture: Callable) -> None:
    image, beside = picture(128, 128), picture(96, 192, seed=1)
    keywords: dict[str, Any] = {"mask": (32, 32, 96, 64), "seed": 1, "steps": 1}
    result = kontext.edit([image, beside], "x", **keywords)
    outside = np.ones((128, 128), bool)
    outside[32:64, 32:96] = False
    np.testing.assert_array_equal(np.asarray(result.image)[outside], np.asarray(image)[outside])
    assert result.image.tobytes() != kontext.edit(image, "x", **keywords).image.tobytes()
    assert [placement.size for placement in result.references] == [(128, 128), (96, 192)]


def test_the_device_gives_the_same_by_one_graph(kontext: Kontext, simulate: Callable, picture: Callable) -> None:
    image, simulation, launches = picture(128, 128), simulate(), []
    keywords: dict[str, Any] = {"seed": 1, "steps": 3, "size": (128, 128)}
    for mask in ((32, 32, 96, 64), (0, 0, 50, 128), (32, 32, 96, 64)):
        expected = kontext.edit(image, "x", mask=mask, **keywords)
        found = simulation.kontext.edit(image, "x", mask=mask, **keywords)
        np.testing.assert_array_equal(found.outputs[0].latents, expected.outputs[0].latents)
        assert found.image.tobytes() == expected.image.tobytes()
        launches.append(simulation.cuda.calls["launch"])
    assert launches == [0, 1, 2]
    assert simulation.graphs == 1


def test_a_request_without_a_mask_has_a_graph_of_its_own(
    kontext: Kontext, simulate: Callable, picture: Callable
) -> None:
    """What is kept of the masked request must not leak into one of the same sizes without a mask."""
    image, simulation = picture(128, 128), simulate()
    masked: dict[str, Any] = {"mask": (32, 32, 96, 64)}
    for keywords in (masked, {}) * 3:
        expected = kontext.edit(image, "x", seed=1, steps=1, **keywords)
        found = simulation.kontext.edit(image, "x", seed=1, steps=1, **keywords)
        np.testing.assert_array_equal(found.outputs[0].latents, expected.outputs[0].latents)
    assert simulation.graphs == 2


def test_a_bundle_of_schema_2_refuses_a_mask_in_words(older_bundle: Bundle, picture: Callable) -> None:
    with (
        Kontext(older_bundle, OnnxRuntimeCpu(older_bundle)) as kontext,
        pytest.raises(
            BundleError,
            match=r"does not have the feature masks, which a request needs \(it has none\); export it again from",
        ),
    ):
        kontext.edit(picture(128, 128), "x", mask=(0, 0, 64, 64), steps=1)
