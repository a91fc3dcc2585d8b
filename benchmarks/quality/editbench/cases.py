"""Defines EditBench's 200 held-out requests whose answers are known, and edits in a row of one picture.

All are fixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle, islice
from random import Random

from .drawing import Draw
from .edits import MAKERS, Edit
from .samples import TEXT_TO_IMAGE, EditSample, draw_sample
from .scene import SQUARE, Scene
from .wordings import sentence

KINDS: Mapping[str, Mapping[str, int]] = {
    "local edit": {"recolour": 20, "remove": 12, "add": 12, "move": 12, "resize": 8, "swap": 8, "both": 8},
    "global edit": {"background": 22, "light": 8},
    "text edit": {"letters": 30},
    "style": {"style": 20},
    "reference in a new scene": {"creature": 20},
    TEXT_TO_IMAGE: {TEXT_TO_IMAGE: 20},
}
"""The number of requests of each task, by the kinds that KontextBench has."""
NUM_CASES = sum(sum(tasks.values()) for tasks in KINDS.values())
FIRST_SEED = 20_000
"""The first seed of the held-out samples; the training's own validation has others."""

TURNS = ("recolour", "add", "move", "resize", "recolour", "remove")
"""The edits in a row; each reference is the answer to the one before."""
NUM_CHAINS = 4


@dataclass(frozen=True, slots=True)
class EditCase:
    """Describes one request: its number in the set, its kind, and the sample with reference, instruction and answer."""

    number: int
    kind: str
    sample: EditSample


def cases(count: int = NUM_CASES) -> tuple[EditCase, ...]:
    """Return the first `count` requests, in an order that mixes the tasks evenly; raise ValueError out of 1..200."""
    if not 1 <= count <= NUM_CASES:
        raise ValueError(f"EditBench has {NUM_CASES} requests; ask for 1 to {NUM_CASES} of them, not {count}")
    places = sorted(
        ((i + 0.5) / number, kind, task)
        for kind, tasks in KINDS.items()
        for task, number in tasks.items()
        for i in range(number)
    )
    return tuple(
        EditCase(number, kind, draw_sample(FIRST_SEED + number, held_out=True, task=task))
        for number, (_, kind, task) in enumerate(places[:count])
    )


def chain(number: int, turns: int = len(TURNS)) -> tuple[EditSample, ...]:
    """Return edits in a row: the scene before each is the one that the edit before it should have given.

    More than six begin with the same six, and go through the tasks again.
    """
    draw = Draw(Random(f"chain {number}"), held_out=True)
    scene = draw.scene(SQUARE, num_things=(3, 4), sign=0.0)
    samples = []
    for task in islice(cycle(TURNS), turns):
        edit = _next_edit(draw, scene, task)
        samples.append(EditSample(task=task, instruction=sentence(draw.rng, edit.words), before=scene, edit=edit))
        scene = edit.after
    return tuple(samples)


def _next_edit(draw: Draw, scene: Scene, task: str) -> Edit:
    while True:
        edit = MAKERS[task](draw, scene)
        if edit is not None and edit.after != scene:
            return edit
