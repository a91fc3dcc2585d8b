"""A request that begins with its reference: encoded first or remembered, watched, cancelled, on the device."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kontext_trt import Cancelled, Kontext

KEYWORDS: dict[str, Any] = {"seed": 1, "steps": 5, "strength": 0.6}  # the last 3 steps


def latents(kontext: Kontext, image: Any, **keywords: Any) -> np.ndarray:
    return kontext.edit(image, "x", **KEYWORDS | keywords).outputs[0].latents


@pytest.fixture
def image(picture: Callable) -> Image.Image:
    return picture(96, 192)


def test_it_is_the_same_whether_the_reference_is_new_or_remembered_or_the_steps_are_watched(
    kontext: Kontext, image: Image.Image
) -> None:
    kontext.forget()
    done: list[tuple[int, int]] = []
    new = latents(kontext, image)
    np.testing.assert_array_equal(latents(kontext, image), new)
    kontext.forget()
    np.testing.assert_array_equal(latents(kontext, image, on_step=lambda *counts: done.append(counts)), new)
    assert done == [(1, 3), (2, 3), (3, 3)]
    np.testing.assert_array_equal(latents(kontext, image, debug_nan=True), new)
    assert np.abs(latents(kontext, image, strength=1.0) - new).max() > 0.1


def test_the_device_gives_the_same_and_then_launches_one_graph(
    kontext: Kontext, simulate: Callable, image: Image.Image
) -> None:
    simulation, expected, launches = simulate(), latents(kontext, image), []
    for _ in range(3):
        np.testing.assert_array_equal(latents(simulation.kontext, image), expected)
        launches.append(simulation.cuda.calls["launch"])
    assert launches == [0, 1, 2]


def test_less_strength_keeps_more_of_the_picture(kontext: Kontext, image: Image.Image) -> None:
    (encoded,) = kontext.executor.run("vae_encoder", {"image": np.asarray(image)[None]})["reference"]
    apart = [np.abs(latents(kontext, image, strength=share) - encoded).mean() for share in (0.2, 0.6, 1.0)]
    assert apart[0] < apart[1] < apart[2]


def test_a_cancelled_one_leaves_what_was_encoded(kontext: Kontext, image: Image.Image) -> None:
    kontext.forget()
    cancel = threading.Event()
    with pytest.raises(Cancelled, match="cancelled after step 1 of 3"):
        latents(kontext, image, cancel=cancel, on_step=lambda *_: cancel.set())
    result = kontext.edit(image, "x", **KEYWORDS)
    assert "encode" not in result.milliseconds
    assert (result.steps, result.strength, len(result.step_milliseconds)) == (5, 0.6, 3)
