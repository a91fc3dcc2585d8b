"""Draws samples: reference, instruction, target, and what must stay, each a pure function of a seed.

`draw_sample(seed, held_out=True)` uses wordings, words and combinations of colour and shape that training never sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random

import numpy as np
from numpy.typing import NDArray

from .drawing import Draw
from .edits import MAKERS, Edit
from .render import Pixels, render, solid_coverage
from .scene import CELLS, Scene, Size
from .wordings import FRAMES, full_phrase, ground_phrase, listed, place_phrase, sentence, sign_phrase

TEXT_TO_IMAGE = "text to image"
WEIGHTS: Mapping[str, float] = {
    "recolour": 12,
    "remove": 5,
    "add": 9,
    "move": 10,
    "resize": 9,
    "swap": 10,
    "both": 16,
    "background": 8,
    "light": 3,
    "letters": 16,
    "style": 9,
    "creature": 16,
    TEXT_TO_IMAGE: 20,
}
"""The weights with which training meets each task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EditSample:
    """Holds one request and its answer.

    `before` is None for text to image; `edit` has the words and the scene after it.
    """

    task: str
    instruction: str
    before: Scene | None
    edit: Edit

    @property
    def size(self) -> Size:
        return self.edit.after.size

    def reference(self) -> Pixels | None:
        """Return the reference (H, W, 3) uint8, None for text to image."""
        return None if self.before is None else render(self.before)

    def target(self) -> Pixels:
        """Return the known answer (H, W, 3) uint8."""
        return render(self.edit.after)

    def stays(self) -> NDArray[np.bool_]:
        """Return (H, W): pixels that the instruction leaves alone; target and reference agree on them."""
        width, height = self.size
        if self.edit.keeps_things:
            return solid_coverage(self.edit.after)
        mask = np.full((height, width), self.edit.touched is not None)
        for left, top, right, bottom in self.edit.touched or ():
            mask[top:bottom, left:right] = False
        return mask


def draw_sample(seed: int, *, held_out: bool = False, task: str | None = None, size: Size | None = None) -> EditSample:
    """Return the sample of a seed; task and size are drawn if not given.

    Raises:
        ValueError: The task is not in `WEIGHTS`.
    """
    if task is not None and task not in WEIGHTS:
        raise ValueError(f"task must be one of {', '.join(WEIGHTS)}, not {task!r}")
    draw = Draw(Random(f"{'held out' if held_out else 'training'} {seed}"), held_out)
    task = task or draw.rng.choices(tuple(WEIGHTS), tuple(WEIGHTS.values()))[0]
    size = size or draw.size()
    if task == TEXT_TO_IMAGE:
        return _text_to_image(draw, size)
    while True:
        before = _reference_scene(draw, size, task)
        edit = MAKERS[task](draw, before)
        if edit is not None and edit.after != before:
            return EditSample(task=task, instruction=sentence(draw.rng, edit.words), before=before, edit=edit)


def _reference_scene(draw: Draw, size: Size, task: str) -> Scene:
    if task == "creature":
        scene = draw.scene(size, num_things=(0, 2), sign=0)
        free = [cell for cell in CELLS if cell not in {thing.cell for thing in scene.things}]
        return replace(scene, creature=draw.creature(draw.rng.choice(free), scene.backdrop))
    plain = task == "style" and draw.rng.random() < 0.5
    return draw.scene(size, sign=1.0 if task == "letters" else 0.0 if plain else 0.2, plain=plain)


def _text_to_image(draw: Draw, size: Size) -> EditSample:
    """Return a caption that says everything there is in a scene, and the scene."""
    scene = draw.scene(size, num_things=(1, 3), sign=0.3, shifted=False)
    phrases = [f"{full_phrase(thing)} {place_phrase(draw.rng, thing.cell)}" for thing in scene.things]
    phrases += [] if scene.sign is None else [sign_phrase(scene.sign)]
    words = FRAMES[TEXT_TO_IMAGE].choose(
        draw.rng, draw.held_out, things=listed(phrases), ground=ground_phrase(draw.rng, scene.backdrop)
    )
    edit = Edit(scene, words, None)
    return EditSample(task=TEXT_TO_IMAGE, instruction=sentence(draw.rng, words), before=None, edit=edit)
