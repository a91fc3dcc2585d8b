"""Defines what training tells the networks besides the answer.

It is which letter of which word each quoted capital is, and what stands where in the picture: letters, each thing's
colour, fill, size and shape, and a creature's face and hat. Linear heads learn to say so and are thrown away.

Without them, that the third capital after the second quotation mark belongs right of the sign's middle, or that "red"
is the circle's and not the background's, has to be found through the flow's loss alone, and takes many times as long.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ...benchmarks.quality.editbench.letters import ALPHABET
from ...benchmarks.quality.editbench.samples import EditSample
from ...benchmarks.quality.editbench.scene import (
    ANATOMY,
    COLOURS,
    FILLS,
    LETTER_SCALE,
    RADII,
    SHAPES,
    SIGN_MARGIN,
    Scene,
    Thing,
)

TOKEN = 16
"""The side in pixels of a token's part of the picture."""
HALVES = 2
"""The number of columns of a token that are asked for separately: a letter and its gap span 18 pixels."""
NONE, OLD, NEW = 0, 1, {3: 2, 4: 5}
"""The roles of text tokens: no letter, a letter of the word that is there, the first letter of a new word.

The last is by the number of the word's letters.
"""
NUM_ROLES = 9
CLASSES = (
    *(len(ALPHABET), len(ALPHABET)),
    *(len(COLOURS), len(FILLS), len(RADII), len(SHAPES) + 1),
    *(len(ANATOMY.eyes), len(ANATOMY.mouths), len(ANATOMY.heads), len(COLOURS)),
)
"""The numbers of classes that are asked for at each token of the picture.

They are letters in its two halves, a thing's attributes, then a creature's. Where there is no thing, the colour is the
background's and the shape a ninth.
"""
COLOUR, SHAPE, EYES = 2, 5, 6
UNKNOWN = -1
ROLES_WEIGHT, PLACES_WEIGHT = 0.05, 0.1
"""The weights of the hints in the loss."""
GROUND_WEIGHT = 0.1
"""The weight of a token without a thing in the hint."""


def letter_roles(tokens: Sequence[str]) -> list[int]:
    """Return one role per token of an instruction: the last quoted word is the new one."""
    quotes = [i for i, token in enumerate(tokens) if token.endswith('"')]
    roles = [NONE] * len(tokens)
    for start, end in zip(quotes[::2], quotes[1::2], strict=False):
        new = end == quotes[-1] and end - start - 1 in NEW
        for i in range(start + 1, end):
            roles[i] = NEW[end - start - 1] + i - start - 1 if new else OLD
    return roles


def places(sample: EditSample, num_tokens: int) -> NDArray[np.int8]:
    """Return (num_tokens, len(CLASSES)): what stands at each token of the answer, by number.

    It is UNKNOWN where that is not asked for. Tokens beyond the answer's know nothing.
    """
    width, height = sample.size
    answers = np.full((height // TOKEN, width // TOKEN, len(CLASSES)), UNKNOWN, np.int8)
    after = sample.edit.after
    if after.style == "none":
        _name_things(answers, after)
    if after.sign is not None:
        _name_letters(answers, after, asked=sample.task in ("letters", "text to image"))
    padded = np.full((num_tokens, len(CLASSES)), UNKNOWN, np.int8)
    flat = answers.reshape(-1, len(CLASSES))
    padded[: len(flat)] = flat
    return padded


def _name_things(answers: NDArray[np.int8], scene: Scene) -> None:
    colours = tuple(COLOURS)
    answers[..., COLOUR], answers[..., SHAPE] = colours.index(scene.backdrop.colour), len(SHAPES)
    creature = scene.creature
    body = creature and Thing(shape=creature.body, colour=creature.colour, size=creature.size, cell=creature.cell)
    for thing in (*scene.things, *((body,) if body else ())):
        answers[_covered(answers, scene, thing), COLOUR:EYES] = (
            colours.index(thing.colour),
            FILLS.index(thing.fill),
            tuple(RADII).index(thing.size),
            SHAPES.index(thing.shape),
        )
    if creature and body:
        answers[_covered(answers, scene, body), EYES:] = (
            tuple(ANATOMY.eyes).index(creature.eyes),
            ANATOMY.mouths.index(creature.mouth),
            ANATOMY.heads.index(creature.head),
            colours.index(creature.accent),
        )


def _covered(answers: NDArray[np.int8], scene: Scene, thing: Thing) -> NDArray[np.bool_]:
    """Return the tokens that a thing stands on."""
    y, x = (np.indices(answers.shape[:2]) + 0.5) * TOKEN
    right, down = scene.position(thing)
    return np.hypot(x - right, y - down) < max(scene.radius(thing.size), 0.7 * TOKEN)


def _name_letters(answers: NDArray[np.int8], scene: Scene, *, asked: bool) -> None:
    assert scene.sign is not None
    left, top, right, bottom = scene.sign_box()
    answers[top // TOKEN : -(-bottom // TOKEN), left // TOKEN : -(-right // TOKEN)] = UNKNOWN
    if not asked:
        return
    x = (np.arange(answers.shape[1] * HALVES) + 0.5) * TOKEN / HALVES - left - SIGN_MARGIN
    y = (np.arange(answers.shape[0]) + 0.5) * TOKEN
    letters = np.array([ALPHABET.index(letter) for letter in scene.sign.word])
    index = np.floor_divide(x, 6 * LETTER_SCALE).astype(int)
    known = (index >= 0) & (index < len(letters))
    row = np.where(known, letters[index.clip(0, len(letters) - 1)], UNKNOWN)
    answers[(y > top) & (y < bottom), :, :HALVES] = row.reshape(-1, HALVES)


def stands(places: Tensor) -> Tensor:
    """Return whether a thing or a creature is known to stand at each token.

    The result is (..., n) bool of `places` (..., n, len(CLASSES)).
    """
    shape = places[..., SHAPE]
    return (shape != UNKNOWN) & (shape < len(SHAPES))


class Hints(nn.Module):
    """Holds the heads, on T5's outputs and on tokens of the answer halfway through the transformer."""

    def __init__(self, text_width: int, width: int) -> None:
        super().__init__()
        self.roles = nn.Linear(text_width, NUM_ROLES)
        self.places = nn.Linear(width, sum(CLASSES))

    def losses(self, text: Tensor, hidden: Tensor, sample: dict[str, Tensor], timesteps: Tensor) -> tuple[Tensor, ...]:
        """Return the losses (roles, letters, things).

        They are of text (b, t, d), tokens of the answer (b, n, d), labels `roles` (b, t) and `places` (b, n,
        len(CLASSES)). Places count by the timestep: they can be read off a picture without noise.
        """
        roles = sample["roles"].long()
        said = functional.cross_entropy(self.roles(text).float().flatten(0, 1), roles.flatten(), reduction="none")
        weights = torch.where(roles.flatten() > NONE, 1.0, 0.05)
        hidden = functional.layer_norm(hidden, hidden.shape[-1:])
        answers = self.places(hidden).float().split(CLASSES, dim=-1)
        kinds = sample["places"].long().unbind(dim=-1)
        noise = timesteps[:, None].expand_as(kinds[0])
        thing = torch.where(stands(sample["places"]), 1.0, GROUND_WEIGHT)
        letters = [_mean_error(answers[i], kinds[i], noise) for i in range(COLOUR)]
        things = [_mean_error(answers[i], kinds[i], noise * thing) for i in range(COLOUR, len(CLASSES))]
        return (said * weights).sum() / weights.sum(), torch.stack(letters).mean(), torch.stack(things).mean()


def _mean_error(answers: Tensor, kinds: Tensor, weights: Tensor) -> Tensor:
    """Return the cross entropy of answers (b, n, classes) where the kind (b, n) is known."""
    error = functional.cross_entropy(answers.flatten(0, 1), kinds.flatten(), ignore_index=UNKNOWN, reduction="none")
    known = (weights * (kinds != UNKNOWN)).flatten()
    return (error * known).sum() / (known.sum() + 1)
