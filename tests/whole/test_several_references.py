"""Several references: where they lie, against ComfyUI's rule, and the picture, against diffusers' own networks."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from plain_flow import before_rounding, encoded, plain_pictures
from simulated_tensorrt import add_plans
from simulation import COVERAGE

from kontext_trt import Bundle, Kontext, RequestError
from kontext_trt.engine.sizes import Grid
from kontext_trt.runtime.flow.rope import position_ids
from kontext_trt.runtime.inputs.references import ReferenceMethod

TOLERANCE = 2e-5  # of 0..1, for a float32 picture; measured: 5e-6
STEPS = 3
SQUARE, WIDE, TALL = (128, 128), (192, 96), (96, 192)


def comfy_ids(target: Grid, references: Sequence[Grid], method: str) -> np.ndarray:
    """Positions of target and references by ComfyUI's rule, which counts in latents and halves them."""

    def grid(shape: Grid, index: int, from_row: int = 0, from_column: int = 0) -> list[list[int]]:
        height, width = 2 * shape[0], 2 * shape[1]
        top, left = (from_row + 1) // 2, (from_column + 1) // 2
        return [[index, top + y, left + x] for y in range((height + 1) // 2) for x in range((width + 1) // 2)]

    ids = grid(target, 0)
    tall = broad = 0
    for number, reference in enumerate(references):
        if method == "index":
            ids += grid(reference, number + 1)
            continue
        height, width = 2 * reference[0], 2 * reference[1]
        down = across = 0
        if height + tall > width + broad:
            across = broad
        else:
            down = tall
        tall, broad = max(tall, height + down), max(broad, width + across)
        ids += grid(reference, 1, down, across)
    return np.array(ids)


def random_shapes(draw: np.random.Generator, kind: str) -> list[Grid]:
    count = int(draw.integers(1, 9))
    sides = np.sort(draw.integers(1, 12, (count, 2)), axis=1)
    if kind == "tall":
        sides = sides[:, ::-1]
    elif kind == "mixed":
        sides = draw.permuted(sides, axis=1)
    return [(int(rows), int(columns)) for rows, columns in sides]


@pytest.mark.parametrize("method", ["offset", "index"])
@pytest.mark.parametrize("kind", ["wide", "tall", "mixed"])
def test_references_lie_where_comfyui_puts_them_and_none_on_another(kind: str, method: str) -> None:
    draw = np.random.default_rng(len(kind))
    for _ in range(100):
        target, *references = [*random_shapes(draw, kind), *random_shapes(draw, kind)]
        ids = position_ids(3, target, references, ReferenceMethod(method))
        np.testing.assert_array_equal(ids[:3], 0)
        np.testing.assert_array_equal(ids[3:], comfy_ids(target, references, method))
        assert len(np.unique(ids[3:], axis=0)) == len(ids) - 3


def noise_for(size: tuple[int, int], batch: int) -> np.ndarray:
    tokens = size[0] * size[1] // 256
    return np.random.default_rng(size[0] + batch).standard_normal((batch, tokens, 64)).astype(np.float32)


@pytest.mark.parametrize(
    ("method", "sizes", "size", "prompts"),
    [
        ("offset", (SQUARE, WIDE), SQUARE, ["make it blue"]),
        ("index", (SQUARE, WIDE), SQUARE, ["make it blue"]),
        pytest.param("offset", (TALL, SQUARE, WIDE), (112, 144), ["make it blue", "a dog"], marks=pytest.mark.check),
        pytest.param("index", (WIDE, WIDE, TALL), WIDE, ["make it blue", "a dog"], marks=pytest.mark.check),
    ],
)
def test_the_picture_is_that_of_diffusers_networks(
    kontext: Kontext,
    pipeline: Any,
    picture: Callable,
    method: str,
    sizes: Sequence[tuple[int, int]],
    size: tuple[int, int],
    prompts: list[str],
) -> None:
    images = [picture(*one, seed=seed) for seed, one in enumerate(sizes)]
    noise = noise_for(size, len(prompts))
    result = kontext.edit(images, prompts, references=method, noise=noise, steps=STEPS, guidance=2.5, size=size)
    ours = before_rounding(kontext.bundle, result)
    target, *references = [(one[1] // 16, one[0] // 16) for one in (size, *sizes)]
    latents = [encoded(pipeline, image) for image in images]

    def theirs(laid: str) -> np.ndarray:
        return plain_pictures(pipeline, latents, comfy_ids(target, references, laid), prompts, size, noise, STEPS)

    expected = theirs(method)
    assert expected.std() > 0.05
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE, rtol=0)
    other = theirs("index" if method == "offset" else "offset")
    assert np.abs(other - expected).max() > 10 * TOLERANCE
    assert [placement.size for placement in result.references] == list(sizes)


def answer(kontext: Kontext, image: Any, prompt: Any = "x", seed: Any = 1, **keywords: Any) -> list[list]:
    """Latents and bytes of every picture: equal only if bit for bit so."""
    asked: dict[str, Any] = {"seed": seed, "steps": 1, **keywords}
    result = kontext.edit(image, prompt, **asked)
    return [[output.latents.tolist(), output.image.tobytes()] for output in result.outputs]


def test_stitched_is_the_picture_that_one_would_paste(kontext: Kontext, picture: Callable) -> None:
    first, second, third = picture(64, 128), picture(64, 128, seed=1), picture(90, 60, seed=2)
    pasted = Image.new("RGB", (64 + 64 + 192, 128))
    pasted.paste(first, (0, 0))
    pasted.paste(second, (64, 0))
    pasted.paste(third.resize((192, 128), Image.Resampling.LANCZOS), (128, 0))
    found = answer(kontext, [first, second, third], references="stitch")
    assert found == answer(kontext, pasted)
    assert found != answer(kontext, first)


def test_one_in_a_list_is_one(kontext: Kontext, picture: Callable) -> None:
    image = picture(*SQUARE)
    alone = answer(kontext, image)
    assert all(answer(kontext, [image], references=method) == alone for method in ReferenceMethod)


def test_the_same_picture_twice_is_not_the_picture_once(kontext: Kontext, picture: Callable) -> None:
    """Encoded twice in one request, then taken from the cache: both give the same."""
    image = picture(*SQUARE, seed=5)
    kontext.forget()
    found = answer(kontext, [image, image])
    assert found == answer(kontext, [image, image])
    assert found != answer(kontext, image)


def test_pictures_and_latents_stand_side_by_side(kontext: Kontext, picture: Callable) -> None:
    """Each reference is what it is alone: latents carried are those that the cache would have held."""
    first, second = picture(*SQUARE), picture(*TALL, seed=1)
    carried = kontext.edit(first, "x", seed=1, steps=1).as_reference()
    both = kontext.edit([second, carried], "x", seed=1, steps=1)
    assert [placement.carried for placement in both.references] == [False, True]
    assert both.tokens.references == (72, 64)
    assert answer(kontext, [second, carried]) != answer(kontext, [second, carried.image])


def test_a_batch_is_its_requests_one_by_one(kontext: Kontext, picture: Callable) -> None:
    images = [picture(*SQUARE), picture(*WIDE, seed=1)]
    together = kontext.edit(images, ["a", "b"], seed=[1, 2], steps=2)
    for output in together.outputs:
        alone = kontext.edit(images, output.prompt, seed=output.seed, steps=2)
        np.testing.assert_allclose(output.latents, alone.outputs[0].latents, atol=1e-5, rtol=0)


@pytest.fixture
def two_covered(bundle: Bundle, tmp_path: Path) -> Bundle:
    """The tiny bundle with plans that cover two references."""
    planned = Bundle.open(shutil.copytree(bundle.path, tmp_path / "planned"))
    add_plans(planned, replace(COVERAGE, references=2))
    return planned


@pytest.mark.parametrize("method", ["offset", "index"])
def test_the_device_gives_the_same_and_records_one_graph(
    kontext: Kontext, two_covered: Bundle, simulate: Callable, picture: Callable, method: str
) -> None:
    images, simulation = [picture(*SQUARE), picture(*WIDE, seed=1)], simulate(bundle=two_covered)
    expected = answer(kontext, images, references=method, steps=2, size=(48, 80))
    launches = []
    for _ in range(3):
        assert answer(simulation.kontext, images, references=method, steps=2, size=(48, 80)) == expected
        launches.append(simulation.cuda.calls["launch"])
    assert launches == [0, 1, 2]
    assert simulation.graphs == 1


def test_a_graph_of_one_method_serves_the_other(two_covered: Bundle, simulate: Callable, picture: Callable) -> None:
    """How references lie is in the tables, which are inputs."""
    images, simulation = [picture(*SQUARE), picture(*WIDE, seed=1)], simulate(bundle=two_covered)
    found = {}
    for _ in range(2):
        for method in ("offset", "index"):
            found.setdefault(method, []).append(answer(simulation.kontext, images, references=method, size=(48, 80)))
    assert found["offset"][0] == found["offset"][1] != found["index"][0] == found["index"][1]
    assert simulation.graphs == 1


def test_plans_of_one_reference_say_how_to_build_for_two(simulate: Callable, picture: Callable) -> None:
    images = [picture(*SQUARE), picture(*WIDE, seed=1)]
    with pytest.raises(RequestError, match="build with --references 2"):
        simulate().kontext.edit(images, "x", steps=1, size=(48, 80))
