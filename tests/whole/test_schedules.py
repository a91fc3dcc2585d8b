"""Solvers and noise levels of a request's own, from the call to the picture's metadata and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kontext_trt import Bundle, BundleError, Kontext, Result
from kontext_trt.engine.bundle.manifest import FlowRecord
from kontext_trt.runtime.flow.schedule import noise_levels

SIGMAS = (1.0, 0.8, 0.3)
AB2 = {"solver": "ab2", "sigmas": SIGMAS}


def latents(result: Result) -> np.ndarray:
    return np.stack([output.latents for output in result.outputs])


@pytest.fixture(scope="module")
def image(picture: Callable) -> Image.Image:
    return picture(96, 192)


@pytest.fixture(scope="module")
def edit(kontext: Kontext, image: Image.Image) -> Callable[..., np.ndarray]:
    return lambda **keywords: latents(kontext.edit(image, "x", **{"seed": 1, **keywords}))


def test_the_model_s_own_levels_give_its_picture_bit_for_bit(edit: Callable) -> None:
    levels = noise_levels(3, 72, FlowRecord())
    np.testing.assert_array_equal(edit(sigmas=levels), edit(steps=3))
    np.testing.assert_array_equal(edit(sigmas=levels[:-1].tolist(), steps=3, solver="euler"), edit(steps=3))
    assert np.abs(edit(sigmas=SIGMAS) - edit(steps=3)).max() > 0.01


def test_levels_that_begin_below_one_are_a_strength(edit: Callable) -> None:
    levels = noise_levels(5, 72, FlowRecord())[2:]
    np.testing.assert_array_equal(edit(sigmas=levels), edit(steps=5, strength=0.6))


def test_the_second_order_begins_with_the_second_step(edit: Callable) -> None:
    np.testing.assert_array_equal(edit(sigmas=[1], solver="ab2"), edit(sigmas=[1]))
    assert np.abs(edit(sigmas=SIGMAS, solver="ab2") - edit(sigmas=SIGMAS)).max() > 0.01


def test_a_batch_is_its_requests_one_by_one(kontext: Kontext, image: Image.Image) -> None:
    mask = np.zeros((192, 96), bool)
    mask[:96] = True
    both = latents(kontext.edit([image, image], "x", seed=[1, 2], mask=mask, **AB2))
    for seed, found in zip((1, 2), both, strict=True):
        alone = latents(kontext.edit([image, image], "x", seed=seed, mask=mask, **AB2))
        np.testing.assert_allclose(found, alone[0], atol=2e-5)
    kept = kontext.executor.run("vae_encoder", {"image": np.asarray(image)[None]})["reference"]
    np.testing.assert_array_equal(both[:, 36:], np.broadcast_to(kept, both.shape)[:, 36:])


def test_the_device_gives_the_same_and_solvers_share_its_graph(
    edit: Callable, simulate: Callable, image: Image.Image
) -> None:
    simulation, launches = simulate(), []
    for keywords in ({"steps": 3}, AB2, {"sigmas": SIGMAS}, AB2):
        np.testing.assert_array_equal(
            latents(simulation.kontext.edit(image, "x", seed=1, **keywords)), edit(**keywords)
        )
        launches.append(simulation.cuda.calls["launch"])
    assert launches == [0, 1, 2, 3]


def test_what_a_picture_says_makes_it_again(kontext: Kontext, image: Image.Image, tmp_path: Path) -> None:
    made = kontext.edit(image, "x", seed=1, **AB2)
    (path,) = made.save(tmp_path / "out.png")
    with Image.open(path) as saved:
        said: dict[str, Any] = json.loads(saved.info["kontext-trt"])
        pixels = np.asarray(saved)
    assert (said["solver"], said["sigmas"], said["steps"]) == ("ab2", list(SIGMAS), 3)
    keywords = {name: said[name] for name in ("seed", "steps", "guidance", "solver", "sigmas")}
    again = kontext.edit(image, said["prompt"], size=(said["width"], said["height"]), **keywords)
    np.testing.assert_array_equal(np.asarray(again.image), pixels)
    plain = kontext.edit(image, "x", seed=1, steps=1)
    assert not {"solver", "sigmas"} & plain.request(plain.outputs[0]).keys()


def test_a_session_s_turns_take_them_and_say_so(kontext: Kontext, image: Image.Image) -> None:
    with kontext.session(image) as session:
        turn = session.edit("x", seed=1, **AB2)
        assert (turn.request["solver"], turn.request["sigmas"]) == ("ab2", list(SIGMAS))
        assert session.edit("y", seed=1, **AB2).reason == ""  # they do not speak against latents


def test_a_bundle_of_before_is_told_by_name(older_bundle: Bundle, image: Image.Image) -> None:
    with Kontext.open(older_bundle) as kontext:
        kontext.edit(image, "x", seed=1, sigmas=[1])
        with pytest.raises(BundleError, match="does not have the feature velocity, which a request needs"):
            kontext.edit(image, "x", solver="ab2")
