"""What training tells the networks besides the answer: which letter of which word each quoted capital is, and where in
the picture the letters stand. Two linear heads learn to say so and are thrown away.

Without them, that the third capital after the second quotation mark belongs right of the sign's middle has to be found
through the flow's loss alone, and takes many times as long.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from .letters import ALPHABET
from .samples import Sample
from .scene import LETTER_SCALE, SIGN_MARGIN

TOKEN = 16
"""Pixels along the side of a token's part of the picture."""
HALVES = 2
"""Columns of a token that are asked for separately: a letter and its gap span 18 pixels."""
NONE, OLD, NEW = 0, 1, {3: 2, 4: 5}
"""Roles of text tokens: no letter, a letter of the word that is there, the first of a new word of so many letters."""
NUM_ROLES = 9
NO_LETTER = -1
ROLES_WEIGHT, GLYPHS_WEIGHT = 0.05, 0.05
"""Of the two hints in the loss."""


def letter_roles(tokens: Sequence[str]) -> list[int]:
    """One a token of an instruction: the last quoted word is the new one."""
    quotes = [i for i, token in enumerate(tokens) if token.endswith('"')]
    roles = [NONE] * len(tokens)
    for start, end in zip(quotes[::2], quotes[1::2], strict=False):
        new = end == quotes[-1] and end - start - 1 in NEW
        for i in range(start + 1, end):
            roles[i] = NEW[end - start - 1] + i - start - 1 if new else OLD
    return roles


def letter_places(sample: Sample, num_tokens: int) -> NDArray[np.int8]:
    """(num_tokens, HALVES): which letter of a sign that the instruction is about stands at each token of the answer, by
    number; NO_LETTER elsewhere. Tokens beyond the answer's have none."""
    places = np.full((num_tokens, HALVES), NO_LETTER, np.int8)
    after = sample.edit.after
    if after.sign is None or sample.task not in ("letters", "text to image"):
        return places
    width, height = sample.size
    left, top, _, bottom = after.sign_box()
    x = (np.arange(width * HALVES // TOKEN) + 0.5) * TOKEN / HALVES - left - SIGN_MARGIN
    y = (np.arange(height // TOKEN) + 0.5) * TOKEN
    letters = np.array([ALPHABET.index(letter) for letter in after.sign.word])
    index = np.floor_divide(x, 6 * LETTER_SCALE).astype(int)
    known = (index >= 0) & (index < len(letters))
    row = np.where(known, letters[index.clip(0, len(letters) - 1)], NO_LETTER)
    grid = np.where(((y > top) & (y < bottom))[:, None], row, NO_LETTER)
    places[: grid.size // HALVES] = grid.reshape(-1, HALVES)
    return places


class Hints(nn.Module):
    """The two heads, on T5's outputs and on tokens of the answer halfway through the transformer."""

    def __init__(self, text_width: int, width: int) -> None:
        super().__init__()
        self.roles = nn.Linear(text_width, NUM_ROLES)
        self.glyphs = nn.Linear(width, HALVES * len(ALPHABET))

    def losses(self, text: Tensor, hidden: Tensor, sample: dict[str, Tensor], timesteps: Tensor) -> tuple[Tensor, ...]:
        """(roles, glyphs), of text (b, t, d), tokens of the answer (b, n, d), labels `roles` (b, t) and `glyphs`
        (b, n, HALVES). Letters count by the timestep: they can be read off a picture without noise."""
        roles, glyphs = sample["roles"].long(), sample["glyphs"].long()
        said = functional.cross_entropy(self.roles(text).float().flatten(0, 1), roles.flatten(), reduction="none")
        weights = torch.where(roles.flatten() > NONE, 1.0, 0.05)
        hidden = functional.layer_norm(hidden, hidden.shape[-1:])
        seen = functional.cross_entropy(
            self.glyphs(hidden).float().unflatten(-1, (HALVES, -1)).flatten(0, 2),
            glyphs.flatten(),
            ignore_index=NO_LETTER,
            reduction="none",
        )
        there = (timesteps[:, None, None] * (glyphs != NO_LETTER)).flatten()
        return (said * weights).sum() / weights.sum(), (seen * there).sum() / (there.sum() + 1)
