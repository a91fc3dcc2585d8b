"""Draws random scenes, and says which combinations and words training never sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from zlib import crc32

from .letters import ALPHABET
from .scene import (
    ANATOMY,
    CELLS,
    COLOURS,
    FILLS,
    PATTERNS,
    RADII,
    SHAPES,
    SIZES,
    Backdrop,
    Creature,
    Scene,
    Sign,
    Size,
    Thing,
)

MAX_SHIFT = 3
"""The most pixels that a thing of a reference may lie away from the middle of its place, in each direction."""
SIGN_COLOURS = ("red", "green", "blue", "purple", "black", "brown")
WORD_LENGTHS = (3, 4)


@dataclass(frozen=True, slots=True)
class Draw:
    """Draws random scenes: `held_out` chooses between what training may see and what it may not."""

    rng: Random
    held_out: bool

    def pair(self, *, colours: Sequence[str] = tuple(COLOURS)) -> tuple[str, str]:
        """Return (colour, shape).

        Held out, it is every second time one that training never sees, where `colours` allows it.
        """
        wanted = self.held_out and self.rng.random() < 0.5
        options = [(colour, shape) for colour in colours for shape in SHAPES if is_held_out(colour, shape) == wanted]
        if not options:
            options = [(colour, shape) for colour in colours for shape in SHAPES if not is_held_out(colour, shape)]
        return self.rng.choice(options)

    def word(self, length: int, *, besides: str = "") -> str:
        """Return random capitals; held out or not as `is_held_out_word` says."""
        while True:
            word = "".join(self.rng.choices(ALPHABET, k=length))
            if is_held_out_word(word) == self.held_out and word != besides:
                return word

    def backdrop(self, *, besides: Sequence[str] = ()) -> Backdrop:
        """Return a background of a colour that is not among `besides`."""
        colours = [colour for colour in COLOURS if colour not in besides]
        pattern = "plain" if self.rng.random() < 0.4 else self.rng.choice(PATTERNS)
        return Backdrop(self.rng.choice(colours), pattern)

    def thing(self, cell: tuple[int, int], colours: Sequence[str], *, shifted: bool, plain: bool = False) -> Thing:
        rng = self.rng
        colour, shape = self.pair(colours=colours)
        return Thing(
            shape=shape,
            colour=colour,
            fill="plain" if plain or rng.random() < 0.6 else rng.choice(FILLS),
            size=rng.choice(tuple(RADII)),
            cell=cell,
            shift=(rng.randint(-MAX_SHIFT, MAX_SHIFT), rng.randint(-MAX_SHIFT, MAX_SHIFT)) if shifted else (0.0, 0.0),
        )

    def size(self) -> Size:
        """Return a size in pixels; every second picture is square."""
        return (128, 128) if self.rng.random() < 0.5 else self.rng.choice(SIZES)

    def scene(
        self,
        size: Size,
        *,
        num_things: tuple[int, int] = (1, 4),
        sign: float = 0.25,
        shifted: bool = True,
        plain: bool = False,
    ) -> Scene:
        """Return a scene of things of distinct colour and shape, each in a place of its own.

        It has a sign with the probability `sign`.
        """
        rng = self.rng
        backdrop = self.backdrop()
        if plain:
            backdrop = Backdrop(backdrop.colour)
        row = rng.randrange(3) if rng.random() < sign else None
        cells = [cell for cell in CELLS if cell[0] != row]
        colours = [colour for colour in COLOURS if colour != backdrop.colour]
        things: dict[tuple[str, str], Thing] = {}
        for cell in rng.sample(cells, rng.randint(*num_things)):
            thing = self.thing(cell, colours, shifted=shifted, plain=plain)
            things.setdefault((thing.colour, thing.shape), thing)
        return Scene(
            size=size,
            backdrop=backdrop,
            things=tuple(things.values()),
            sign=None if row is None else Sign(self.word(rng.choice(WORD_LENGTHS)), rng.choice(SIGN_COLOURS), row),
        )

    def creature(self, cell: tuple[int, int], backdrop: Backdrop) -> Creature:
        rng = self.rng
        colours = [colour for colour in COLOURS if colour not in (backdrop.colour, "black", "white")]
        colour, accent = rng.sample(colours, 2)
        return Creature(
            body=rng.choice(ANATOMY.bodies),
            colour=colour,
            eyes=rng.choice(tuple(ANATOMY.eyes)),
            mouth=rng.choice(ANATOMY.mouths),
            head=rng.choice(ANATOMY.heads),
            accent=accent,
            cell=cell,
        )


def is_held_out(colour: str, shape: str) -> bool:
    """Return whether a shape in this colour is kept from training: one combination of eleven."""
    return (tuple(COLOURS).index(colour) * 5 + SHAPES.index(shape) * 3) % 11 == 0


def is_held_out_word(word: str) -> bool:
    """Return whether a word is kept from training: one of eight."""
    return crc32(word.encode()) % 8 == 0
