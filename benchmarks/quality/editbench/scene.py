"""Describes what a picture of the small model's world holds.

There are a background, things on a grid of nine places, a sign, and a creature. Everything is a plain value;
`render.py` draws it. The same scene always gives the same pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Size = tuple[int, int]
"""The (width, height) of a picture in pixels."""
Point = tuple[float, float]
"""The (x, y) of a point in pixels, from the top left corner."""

SIZES: tuple[Size, ...] = ((96, 160), (112, 144), (128, 128), (144, 112), (160, 96))
"""The sizes of pictures: multiples of 16, 60 to 64 tokens each."""
SQUARE: Size = (128, 128)

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "orange": (244, 140, 30),
    "yellow": (248, 216, 50),
    "green": (44, 160, 60),
    "cyan": (60, 200, 210),
    "blue": (40, 80, 210),
    "purple": (130, 50, 170),
    "pink": (244, 140, 190),
    "brown": (128, 78, 40),
    "black": (24, 24, 24),
    "white": (246, 246, 246),
    "grey": (136, 136, 136),
}
SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "ring", "hexagon")
FILLS = ("plain", "striped", "dotted")
PATTERNS = ("plain", "striped", "checked", "dotted", "faded")
RADII: Mapping[str, float] = {"small": 9.0, "medium": 13.0, "large": 18.0}
"""The radii in pixels of a picture whose shorter side is 128."""

PLACES: Mapping[str, tuple[int, int]] = {
    "top left": (0, 0),
    "top": (0, 1),
    "top right": (0, 2),
    "left": (1, 0),
    "centre": (1, 1),
    "right": (1, 2),
    "bottom left": (2, 0),
    "bottom": (2, 1),
    "bottom right": (2, 2),
}
"""The (row, column) of the nine places."""
ROWS = ("top", "middle", "bottom")
CELLS = tuple(PLACES.values())
PLACE_NAMES: Mapping[tuple[int, int], str] = {cell: name for name, cell in PLACES.items()}

LETTER_SCALE = 3
"""The number of pixels that a dot of the 5 x 7 letters spans."""
SIGN_MARGIN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """Describes a coloured shape in a place, `shift` pixels away from its middle."""

    shape: str
    colour: str
    fill: str = "plain"
    size: str = "medium"
    cell: tuple[int, int]
    shift: Point = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Backdrop:
    """Describes a background of one colour, plain or in a pattern with a second tone of it."""

    colour: str
    pattern: str = "plain"


@dataclass(frozen=True, slots=True)
class Sign:
    """Describes a white plate with a word of block capitals, in the middle of a row."""

    word: str
    colour: str
    row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Creature:
    """Describes a compound figure: a body with eyes, a mouth and something on its head."""

    body: str
    colour: str
    eyes: int
    mouth: str
    head: str
    accent: str
    size: str = "large"
    cell: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Describes a whole picture of `size`; `light` and `style` are applied to the finished drawing."""

    size: Size
    backdrop: Backdrop
    things: tuple[Thing, ...] = ()
    sign: Sign | None = None
    creature: Creature | None = None
    light: str = "day"
    style: str = "none"

    @property
    def unit(self) -> float:
        """The factor that lengths are multiplied by: 1 where the shorter side is 128 pixels."""
        return min(self.size) / 128

    def centre(self, cell: tuple[int, int]) -> Point:
        """Return the middle of a place, on whole pixels."""
        row, column = cell
        return float(round((column + 0.5) * self.size[0] / 3)), float(round((row + 0.5) * self.size[1] / 3))

    def position(self, thing: Thing) -> Point:
        x, y = self.centre(thing.cell)
        return x + thing.shift[0], y + thing.shift[1]

    def radius(self, size: str) -> float:
        return RADII[size] * self.unit

    def sign_box(self) -> tuple[int, int, int, int]:
        """Return (left, top, right, bottom) of the sign's plate, right and bottom outside it; there must be a sign."""
        assert self.sign is not None
        x, y = self.centre((self.sign.row, 1))
        width = LETTER_SCALE * (6 * len(self.sign.word) - 1) + 2 * SIGN_MARGIN
        height = LETTER_SCALE * 7 + 2 * SIGN_MARGIN
        left, top = int(x) - width // 2, int(y) - height // 2
        return left, top, left + width, top + height


@dataclass(frozen=True, slots=True)
class Primitive:
    """Describes a primitive to draw: a shape of a radius at a point, in a colour and fill."""

    shape: str
    colour: tuple[int, int, int]
    fill: str
    centre: Point
    radius: float


CREATURE_SCALE = 1.15
"""The radius of a creature's body over that of a thing of the same size word."""


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Says where a creature's parts lie, in units of its body's radius.

    A part is (shape, colour name or "accent", x, y, radius).
    """

    eyes: Mapping[int, tuple[float, ...]] = field(default_factory=lambda: {1: (0.0,), 2: (-0.36, 0.36)})
    mouths: tuple[str, ...] = ("round", "wide", "none")
    heads: tuple[str, ...] = ("hat", "horns", "ball", "none")
    bodies: tuple[str, ...] = ("circle", "square", "hexagon", "diamond")


ANATOMY = Anatomy()


def creature_parts(scene: Scene) -> list[Primitive]:
    """Return the primitives of the scene's creature, from back to front."""
    creature = scene.creature
    if creature is None:
        return []
    radius = CREATURE_SCALE * scene.radius(creature.size)
    x, y = scene.centre(creature.cell)
    parts: list[Primitive] = []

    def add(shape: str, colour: str, right: float, down: float, extent: float) -> None:
        centre = (x + right * radius, y + down * radius)
        parts.append(Primitive(shape, COLOURS[colour], "plain", centre, extent * radius))

    if creature.head == "ball":
        add("circle", creature.accent, 0.0, -0.95, 0.34)
    elif creature.head == "horns":
        add("triangle", creature.accent, -0.55, -0.75, 0.38)
        add("triangle", creature.accent, 0.55, -0.75, 0.38)
    add(creature.body, creature.colour, 0.0, 0.0, 1.0)
    if creature.head == "hat":
        add("square", creature.accent, 0.0, -0.85, 0.4)
    for right in ANATOMY.eyes[creature.eyes]:
        add("circle", "white", right, -0.18, 0.27)
        add("circle", "black", right, -0.18, 0.13)
    if creature.mouth == "round":
        add("circle", creature.accent, 0.0, 0.42, 0.18)
    elif creature.mouth == "wide":
        add("circle", creature.accent, -0.24, 0.42, 0.13)
        add("circle", creature.accent, 0.0, 0.46, 0.13)
        add("circle", creature.accent, 0.24, 0.42, 0.13)
    return parts


def thing_part(scene: Scene, thing: Thing) -> Primitive:
    """Return the primitive of a thing."""
    return Primitive(thing.shape, COLOURS[thing.colour], thing.fill, scene.position(thing), scene.radius(thing.size))
