"""LoRAs that are swapped in: whole pictures, by every road that a bundle with branches runs on."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lora_pictures import fuse_by_hand, random_pairs
from PIL import Image

from kontext_trt import Bundle, Kontext, Session
from kontext_trt.engine.components import Operators

MakePicture = Callable[..., Image.Image]
Branched = Callable[..., Bundle]
LoraFile = Callable[[int], Path]
FORMS = (Operators.SINGLE, Operators.FUSED)


def latents(kontext: Kontext, picture: MakePicture, **request) -> np.ndarray:
    asked = {"steps": 2, "seed": 1, "size": (144, 112)} | request
    return kontext.edit(picture(128, 128), asked.pop("prompt", "make it blue"), **asked).outputs[0].latents


@pytest.mark.parametrize("form", FORMS)
def test_with_none_set_the_pictures_are_the_bases(
    branched_bundle: Branched, bundle_path: Path, fused_path: Path, picture: MakePicture, form: Operators
):
    plain = fused_path if form is Operators.FUSED else bundle_path
    with Kontext.open(plain) as base, Kontext.open(branched_bundle(form)) as kontext:
        assert kontext.loras == ()
        np.testing.assert_allclose(latents(kontext, picture), latents(base, picture), atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_one_after_the_other_is_that_one_again(
    branched_bundle: Branched, lora_file: LoraFile, picture: MakePicture, form: Operators
):
    with Kontext.open(branched_bundle(form)) as kontext:
        none = latents(kontext, picture)
        made = []
        for seed in (1, 2, 1):
            kontext.set_lora([lora_file(seed)])
            made.append(latents(kontext, picture))
        kontext.set_lora([])
        assert np.array_equal(made[0], made[2])
        assert np.abs(made[0] - made[1]).max() > 1e-2
        assert np.abs(made[0] - none).max() > 1e-2
        assert np.array_equal(latents(kontext, picture), none)


@pytest.mark.parametrize("form", FORMS)
def test_swapped_is_what_fused_weights_give(
    branched_bundle: Branched,
    lora_file: LoraFile,
    checkpoint_copy: Path,
    tmp_path: Path,
    picture: MakePicture,
    form: Operators,
):
    """Two files with scales, on an independent sum in float64."""
    from kontext_trt.export.export import ExportOptions, export_bundle

    bundle = branched_bundle(form)
    for seed, scale in ((1, 0.5), (2, -1.5)):
        fuse_by_hand(checkpoint_copy, random_pairs(bundle, 2, seed), scale)
    fused = export_bundle(checkpoint_copy, tmp_path / "fused", ExportOptions(operators=form))
    with Kontext.open(fused) as other, Kontext.open(bundle) as kontext:
        kontext.set_lora([(lora_file(1), 0.5), (lora_file(2), -1.5)])
        np.testing.assert_allclose(latents(kontext, picture), latents(other, picture), atol=1e-4)
