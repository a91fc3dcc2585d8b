"""Previews: when they come, what they show, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from kontext_trt import Kontext, RequestError
from kontext_trt.runtime.flow.previews import Previews, preview_steps, straight_on


@pytest.mark.parametrize(
    ("count", "steps", "after"),
    [
        (3, 28, (7, 14, 21)),
        (1, 2, (1,)),
        (3, 4, (1, 2, 3)),
        (3, 3, (1, 2)),
        (100, 3, (1, 2)),
        (5, 1, ()),
        (0, 9, ()),
    ],
)
def test_they_come_evenly_and_never_after_the_last_step(count: int, steps: int, after: tuple[int, ...]):
    assert preview_steps(count, steps) == after


def test_a_straight_flow_is_seen_to_its_end():
    """Between noise and picture, x = (1 - sigma) picture + sigma noise is straight."""
    draw = np.random.default_rng(0)
    picture, noise = draw.standard_normal((2, 1, 4, 8)).astype(np.float32)
    sigmas = np.array([1.0, 0.7, 0.25, 0.0], np.float32)
    before, after = ((1 - sigma) * picture + sigma * noise for sigma in sigmas[1:3])
    np.testing.assert_allclose(straight_on(before, after, np.diff(sigmas)[1:]), picture, atol=1e-5)


@pytest.mark.parametrize("steps", [4, 5])
def test_the_result_is_the_same_and_previews_come_near_to_it(kontext: Kontext, picture: Callable, steps: int):
    """Both parities: the place that a preview is decoded from holds the latents of every other step."""
    image = picture(144, 112)
    shown: list[tuple[int, np.ndarray]] = []
    previews = Previews(count=steps - 1, show=lambda number, pictures: shown.append((number, np.asarray(pictures[0]))))
    plain = kontext.edit(image, "x", steps=steps, seed=0)
    result = kontext.edit(image, "x", steps=steps, seed=0, previews=previews)
    assert np.array_equal(result.image, plain.image)
    assert np.array_equal(result.outputs[0].latents, plain.outputs[0].latents)
    assert [number for number, _ in shown] == list(range(steps - 1))
    last = np.asarray(plain.image, float)
    apart = [np.abs(seen - last).mean() for _, seen in shown]
    assert apart[-1] < apart[0] < np.abs(last - 128).mean()
    assert result.milliseconds["preview"] > 0
    assert "preview" not in plain.milliseconds


def test_several_pictures_are_shown_together_and_a_mask_holds(kontext: Kontext, picture: Callable):
    image = picture(144, 112)
    shown: list[tuple[Image.Image, ...]] = []
    previews = Previews(count=1, show=lambda number, pictures: shown.append(pictures))
    box = (32, 32, 96, 80)
    kontext.edit(image, "x", steps=2, seed=[0, 1], mask=box, previews=previews)
    ((one, other),) = shown
    outside = np.ones((112, 144), bool)
    outside[32:80, 32:96] = False
    for seen in (one, other):
        assert np.array_equal(np.asarray(seen)[outside], np.asarray(image)[outside])
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("count", [0, 101, 1.5, True])
def test_a_count_that_is_none_is_refused(count):
    with pytest.raises(RequestError, match="previews must be a whole number from 1 to 100, not"):
        Previews(count=count, show=lambda number, pictures: None)
