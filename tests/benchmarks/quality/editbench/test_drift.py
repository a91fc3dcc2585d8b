"""How edits in a row wear a picture out, counted on a model that is right and one that wears."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kontext_trt.benchmarks.quality.editbench.cases import TURNS, chain
from kontext_trt.benchmarks.quality.editbench.chain_sheet import chain_sheet
from kontext_trt.benchmarks.quality.editbench.drift import Drift, measure_drift
from kontext_trt.benchmarks.quality.editbench.scene import SIZES
from kontext_trt.engine.errors import BundleError
from kontext_trt.runtime.inputs.references import Latents
from kontext_trt.runtime.inputs.request import Request

SESSIONS, NUM_TURNS = 2, 7
RIGHT = 99.0


class Answering:
    """Stands for a Kontext that knows every right answer, and whose pictures are one brighter for each way through
    pixels: a reference that is a picture was one."""

    sizes = SIZES

    def __init__(self) -> None:
        self.bundle = SimpleNamespace(fingerprint="b")
        self.executor = self
        self.seeds: list[object] = []
        self._targets = {sample.instruction: sample.target() for i in range(SESSIONS) for sample in chain(i, NUM_TURNS)}

    def run(self, request: Any, *arguments: Any, **_: Any) -> Any:
        if not isinstance(request, Request):
            (inputs,) = arguments
            return self._component(request, inputs)
        (reference,) = request.sources
        brighter = 0 if isinstance(reference, Latents) else self._brighter(reference) + 1
        self.seeds.append(request.sampling.seed)
        picture = self._targets[request.prompts[0]].astype(int) + brighter
        image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
        output = SimpleNamespace(image=image, latents=np.full((64, 64), brighter, np.float32))
        described = {"prompt": request.prompts[0], "seed": request.sampling.seed}
        return SimpleNamespace(outputs=(output,), image=image, size=image.size, request=lambda _: described, files=())

    def _brighter(self, reference: Image.Image) -> int:
        """How much brighter a picture is than the answer that it is nearest to."""
        found = [np.asarray(reference).astype(int) - target for target in self._targets.values()]
        nearest = min(found, key=lambda one: np.abs(one).mean())
        return max(0, round(float(np.median(nearest))))

    def _component(self, component: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """An encoder that keeps pixels as they are, and a decoder that makes them three brighter."""
        if component == "vae_encoder":
            self._pixels = inputs["image"]
            return {"reference": np.zeros((1, 64, 64), np.float32)}
        assert inputs["latents"].shape == (1, 8, 8, 64)
        return {"image": np.clip(self._pixels.astype(int) + 3, 0, 255).astype(np.uint8)}


@pytest.fixture(scope="module")
def made() -> Drift:
    kontext: Any = Answering()
    found = measure_drift(kontext, sessions=SESSIONS, turns=NUM_TURNS, seed=5, steps=3)
    assert set(kontext.seeds) == {5}
    return found


def test_each_road_is_counted_turn_by_turn(made: Drift) -> None:
    latents, pixels = made.roads
    assert (latents.carry, pixels.carry) == ("latents", "pixels")
    tasks = [turn.task for turn in latents.turns]
    assert tasks == [*TURNS, TURNS[0]]
    assert all(turn.success == 1 for turn in latents.turns)
    assert latents.turns[0].untouched_db == pytest.approx(pixels.turns[0].untouched_db)  # both begin with a picture
    assert latents.turns[-1].untouched_db == pytest.approx(RIGHT, abs=10)
    drops = [turn.untouched_db for turn in pixels.turns]
    assert drops == sorted(drops, reverse=True)
    assert pixels.lost_db == pytest.approx(20 * np.log10(NUM_TURNS), abs=1.5)
    assert latents.lost_db < 0


def test_each_edit_is_also_begun_with_the_known_picture(made: Drift) -> None:
    assert made.alone == (1.0,) * NUM_TURNS


def test_the_autoencoder_is_measured_alone(made: Drift) -> None:
    assert len(made.autoencoder_db) == NUM_TURNS
    assert made.autoencoder_db[0] == pytest.approx(20 * np.log10(255 / 3), abs=0.5)
    assert list(made.autoencoder_db) == sorted(made.autoencoder_db, reverse=True)


def test_it_is_written_without_pictures(made: Drift) -> None:
    found = json.loads(json.dumps(made.to_dict(), default=lambda one: {"task": one.task}))
    assert found["sessions"] == SESSIONS
    assert [road["carry"] for road in found["roads"]] == ["latents", "pixels"]
    assert len(found["roads"][1]["turns"]) == NUM_TURNS
    assert "shown" not in found["roads"][0]


def test_the_sheet_has_a_column_per_turn_and_frames_what_is_wrong(made: Drift) -> None:
    latents, pixels = made.roads
    wrong = replace(pixels, shown=tuple(replace(one, success=False) for one in pixels.shown))
    layout = chain_sheet(replace(made, roads=(latents, wrong)), "small", "made by nobody").lay_out()
    assert layout.said[:2] == ("Edits in a row by small: the first chain", "made by nobody")
    assert layout.said[2].startswith("dB: how near the pixels that no edit so far may touch are")
    heads = [f"{number}. {one.instruction}" for number, one in enumerate(made.samples, 1)]
    assert set(heads) <= set(layout.said)
    assert layout.said.count("known answer") == layout.said.count("carried as pixels") == 2, "one per band"
    assert [mark for mark, _ in layout.marks].count(False) == len(layout.frames) == NUM_TURNS
    assert len(layout.pictures) == 3 * (NUM_TURNS + 1)
    words = f"wrong: {wrong.shown[0].untouched_db:.1f} dB"
    assert words in layout.said


def test_many_turns_stand_in_bands(made: Drift) -> None:
    sheet = chain_sheet(made, "small", "made by nobody")
    assert [len(table.columns) for table in sheet.tables] == [1 + 7, 1 + 1]
    width, height = sheet.draw().size
    assert width < 1500
    assert height > 6 * 128


def test_another_model_is_refused() -> None:
    kontext: Any = SimpleNamespace(sizes=((1024, 1024),))
    with pytest.raises(BundleError, match="EditBench needs a bundle of the small Kontext"):
        measure_drift(kontext)
