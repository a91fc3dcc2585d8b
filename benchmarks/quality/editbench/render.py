"""Renders a scene to pixels, with NumPy alone.

Shapes are signed distances in pixels, drawn over a box around them with an edge of a pixel and a half.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .letters import word_coverage
from .scene import COLOURS, LETTER_SCALE, SIGN_MARGIN, Backdrop, Primitive, Scene, Size, creature_parts, thing_part

Floats = NDArray[np.floating]
"""An array that is float32 wherever it is stored."""
Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]
"""A box (left, top, right, bottom) in pixels, right and bottom outside."""

EDGE = 1.5
"""The number of pixels over which a shape's edge fades."""
REACH = 1.1
"""The number of radii from its centre that no shape reaches beyond."""
PERIOD = 8.0
"""The number of pixels from one stripe or dot of a thing's fill to the next."""
BACKDROP_PERIOD = 16.0

Distance = Callable[[Floats, Floats, float], Floats]


def _circle(x: Floats, y: Floats, r: float) -> Floats:
    return np.sqrt(x * x + y * y) - r


def _square(x: Floats, y: Floats, r: float) -> Floats:
    return np.maximum(np.abs(x), np.abs(y)) - 0.86 * r


def _triangle(x: Floats, y: Floats, r: float) -> Floats:
    return np.maximum((1.75 * np.abs(x) - 0.95 * (y + r)) / 1.991, y - 0.75 * r)


def _diamond(x: Floats, y: Floats, r: float) -> Floats:
    return (np.abs(x) + np.abs(y)) * 0.7071 - 0.74 * r


def _star(x: Floats, y: Floats, r: float) -> Floats:
    """Return the distance to a star of five points: one half of a point, folded around."""
    inner = 0.45
    sector = np.pi / 5
    angle = np.abs((np.arctan2(x, -y) + sector) % (2 * sector) - sector)
    length = np.sqrt(x * x + y * y)
    along, across = length * np.cos(angle), length * np.sin(angle)
    dx, dy = inner * np.cos(sector) - 1.0, inner * np.sin(sector)
    return ((along - r) * dy - across * dx) / float(np.hypot(dx, dy))


def _cross(x: Floats, y: Floats, r: float) -> Floats:
    x, y = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(x - 0.34 * r, y - 0.98 * r), np.maximum(y - 0.34 * r, x - 0.98 * r))


def _ring(x: Floats, y: Floats, r: float) -> Floats:
    return np.abs(np.sqrt(x * x + y * y) - 0.72 * r) - 0.28 * r


def _hexagon(x: Floats, y: Floats, r: float) -> Floats:
    return np.maximum(0.866 * np.abs(x) + 0.5 * np.abs(y), np.abs(y)) - 0.88 * r


DISTANCES: dict[str, Distance] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "diamond": _diamond,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
    "hexagon": _hexagon,
}


def second_tone(colour: tuple[int, int, int]) -> Floats:
    """Return (3,) float32: the darker tone of a colour that patterns are made with, a lighter one of dark colours."""
    values = np.array(colour, np.float32)
    return values * 0.55 if values.max() > 100 else values + 90.0


def part_box(part: Primitive, size: Size) -> Box:
    """Return the box of pixels that a part can touch, inside the picture."""
    x, y = part.centre
    reach = REACH * part.radius + EDGE
    left, top = max(int(x - reach), 0), max(int(y - reach), 0)
    return left, top, min(int(x + reach) + 1, size[0]), min(int(y + reach) + 1, size[1])


def part_coverage(part: Primitive, box: Box) -> tuple[Floats, Floats, Floats]:
    """Return a part's coverage over a box, and the box's coordinates.

    They are coverage (h, w) in 0..1, and x (1, w) and y (h, 1) from the part's centre to pixels' middles.
    """
    left, top, right, bottom = box
    x = (np.arange(left, right, dtype=np.float32) + np.float32(0.5 - part.centre[0]))[None, :]
    y = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - part.centre[1]))[:, None]
    distance = DISTANCES[part.shape](x, y, part.radius)
    return np.clip(0.5 - distance / EDGE, 0, 1, dtype=np.float32), x, y


def _wave(x: Floats, period: float) -> Floats:
    """Return 0 and 1 in turns of half a period, with soft edges."""
    return np.clip(0.5 + 1.6 * np.sin(x * np.float32(2 * np.pi / period)), 0, 1)


def _dots(x: Floats, y: Floats, period: float) -> Floats:
    dx = (x + period / 2) % period - period / 2
    dy = (y + period / 2) % period - period / 2
    return np.clip(0.5 + (0.28 * period - np.sqrt(dx * dx + dy * dy)) / EDGE, 0, 1)


def draw_part(canvas: Floats, part: Primitive) -> None:
    """Lay a part over `canvas` (H, W, 3) float32 of 0..255."""
    height, width = canvas.shape[:2]
    left, top, right, bottom = box = part_box(part, (width, height))
    if left >= right or top >= bottom:
        return
    coverage, x, y = part_coverage(part, box)
    colour = np.array(part.colour, np.float32)
    paint: Floats = colour
    if part.fill != "plain":
        amount = _wave(x, PERIOD) if part.fill == "striped" else _dots(x, y, PERIOD)
        paint = colour + (second_tone(part.colour) - colour) * amount[..., None]
    region = canvas[top:bottom, left:right]
    region += coverage[..., None] * (paint - region)


@lru_cache(maxsize=64)
def _pattern(pattern: str, size: Size) -> Floats:
    """Return (H, W, 1) float32 in 0..1: how much of the second tone each pixel of a background has."""
    width, height = size
    x = (np.arange(width, dtype=np.float32) + 0.5)[None, :]
    y = (np.arange(height, dtype=np.float32) + 0.5)[:, None]
    amount = {
        "plain": lambda: np.zeros((height, width), np.float32),
        "striped": lambda: _wave(y, BACKDROP_PERIOD) + 0 * x,
        "checked": lambda: (
            0.5 + 0.5 * (2 * _wave(x, 2 * BACKDROP_PERIOD) - 1) * (2 * _wave(y, 2 * BACKDROP_PERIOD) - 1)
        ),
        "dotted": lambda: _dots(x, y, BACKDROP_PERIOD),
        "faded": lambda: y / height + 0 * x,
    }[pattern]()
    return (0.6 * amount[..., None]).astype(np.float32)


def draw_backdrop(backdrop: Backdrop, size: Size) -> Floats:
    """Return a fresh canvas (H, W, 3) float32 of 0..255."""
    colour = np.array(COLOURS[backdrop.colour], np.float32)
    return colour + (second_tone(COLOURS[backdrop.colour]) - colour) * _pattern(backdrop.pattern, size)


def draw_sign(canvas: Floats, scene: Scene) -> None:
    """Lay the scene's sign over `canvas` (H, W, 3) float32 of 0..255."""
    assert scene.sign is not None
    left, top, right, bottom = scene.sign_box()
    canvas[top:bottom, left:right] = COLOURS["black"]
    canvas[top + 1 : bottom - 1, left + 1 : right - 1] = COLOURS["white"]
    ink = word_coverage(scene.sign.word, LETTER_SCALE)[..., None]
    region = canvas[top + SIGN_MARGIN : bottom - SIGN_MARGIN, left + SIGN_MARGIN : right - SIGN_MARGIN]
    region += ink * (np.array(COLOURS[scene.sign.colour], np.float32) - region)


def scene_parts(scene: Scene) -> list[Primitive]:
    """Return everything drawn as shapes, from back to front."""
    return [*(thing_part(scene, thing) for thing in scene.things), *creature_parts(scene)]


def render(scene: Scene) -> Pixels:
    """Return the picture (H, W, 3) uint8."""
    canvas = draw_backdrop(scene.backdrop, scene.size)
    for part in scene_parts(scene):
        draw_part(canvas, part)
    if scene.sign is not None:
        draw_sign(canvas, scene)
    finished = STYLES[scene.style](LIGHTS[scene.light](canvas))
    return np.clip(finished + 0.5, 0, 255).astype(np.uint8)


def solid_coverage(scene: Scene) -> NDArray[np.bool_]:
    """Return (H, W): where a thing, the creature or the sign covers the background and nothing of it shows through."""
    width, height = scene.size
    covered = np.zeros((height, width), bool)
    for part in scene_parts(scene):
        left, top, right, bottom = box = part_box(part, scene.size)
        if left < right and top < bottom:
            covered[top:bottom, left:right] |= part_coverage(part, box)[0] >= 1
    if scene.sign is not None:
        left, top, right, bottom = scene.sign_box()
        covered[top:bottom, left:right] = True
    return covered


def _unchanged(canvas: Floats) -> Floats:
    return canvas


def _night(canvas: Floats) -> Floats:
    return canvas * np.array([0.32, 0.38, 0.6], np.float32)


def _fog(canvas: Floats) -> Floats:
    return canvas * 0.4 + 0.6 * 205.0


def _sepia(canvas: Floats) -> Floats:
    grey = canvas @ np.array([0.3, 0.59, 0.11], np.float32)
    return grey[..., None] * np.array([1.0, 0.82, 0.6], np.float32) + np.array([10, 5, 0], np.float32)


PIXEL = 8
"""The side in pixels of a block in the pixelated style."""


def _pixelate(canvas: Floats) -> Floats:
    height, width = canvas.shape[:2]
    blocks = canvas.reshape(height // PIXEL, PIXEL, width // PIXEL, PIXEL, 3).mean(axis=(1, 3), dtype=np.float32)
    return blocks.repeat(PIXEL, axis=0).repeat(PIXEL, axis=1)


def _outline(canvas: Floats) -> Floats:
    """Draw black lines on white where colours meet."""
    padded = np.pad(canvas, ((1, 1), (1, 1), (0, 0)), mode="edge")
    across = np.abs(padded[1:-1, 2:] - padded[1:-1, :-2]).max(axis=2)
    down = np.abs(padded[2:, 1:-1] - padded[:-2, 1:-1]).max(axis=2)
    lines = 255.0 - np.minimum(np.maximum(across, down) * 2.5, 255.0)
    return np.repeat(lines[..., None], 3, axis=2)


LIGHTS: dict[str, Callable[[Floats], Floats]] = {"day": _unchanged, "night": _night, "fog": _fog}
STYLES: dict[str, Callable[[Floats], Floats]] = {
    "none": _unchanged,
    "sepia": _sepia,
    "pixelate": _pixelate,
    "outline": _outline,
}
