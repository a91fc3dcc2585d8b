"""Makes edits with known answers: each takes a scene to another one, and says in words how.

An edit that a scene has no room for returns None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from .drawing import Draw, is_held_out
from .render import Box, part_box
from .scene import CELLS, COLOURS, RADII, Backdrop, Scene, Thing, creature_parts, thing_part
from .wordings import FRAMES, creature_place, full_phrase, ground_phrase, place_phrase, refer, spot_phrase, tone_phrase


@dataclass(frozen=True, slots=True)
class Edit:
    """Holds what an edit makes of a scene, the words for it, and the boxes outside of which nothing changes.

    `touched` is None where the whole picture changes; `keeps_things` is true where all but the background stays.
    """

    after: Scene
    words: str
    touched: tuple[Box, ...] | None
    keeps_things: bool = False


Maker = Callable[[Draw, Scene], Edit | None]


def _box(scene: Scene, thing: Thing) -> Box:
    return part_box(thing_part(scene, thing), scene.size)


def _with(scene: Scene, old: Thing, new: Thing | None) -> Scene:
    things = [new if thing is old else thing for thing in scene.things]
    return replace(scene, things=tuple(thing for thing in things if thing is not None))


def _free_cells(scene: Scene) -> list[tuple[int, int]]:
    taken = {thing.cell for thing in scene.things}
    row = None if scene.sign is None else scene.sign.row
    return [cell for cell in CELLS if cell not in taken and cell[0] != row]


def _say(draw: Draw, frames: str, **gaps: str) -> str:
    return FRAMES[frames].choose(draw.rng, draw.held_out, **gaps)


def _pairs(scene: Scene) -> set[tuple[str, str]]:
    return {(thing.colour, thing.shape) for thing in scene.things}


def recolour(draw: Draw, scene: Scene) -> Edit | None:
    """Give a thing another colour."""
    if not scene.things:
        return None
    thing = draw.rng.choice(scene.things)
    colours = [
        colour
        for colour in COLOURS
        if colour not in (scene.backdrop.colour, thing.colour)
        and (colour, thing.shape) not in _pairs(scene)
        and (draw.held_out or not is_held_out(colour, thing.shape))
    ]
    unseen = [colour for colour in colours if is_held_out(colour, thing.shape)]
    colour = draw.rng.choice(unseen or colours)
    words = _say(draw, "recolour", x=refer(draw.rng, scene, thing), colour=colour)
    return Edit(_with(scene, thing, replace(thing, colour=colour)), words, (_box(scene, thing),))


def remove(draw: Draw, scene: Scene) -> Edit | None:
    """Remove a thing."""
    if not scene.things:
        return None
    thing = draw.rng.choice(scene.things)
    words = _say(draw, "remove", x=refer(draw.rng, scene, thing))
    return Edit(_with(scene, thing, None), words, (_box(scene, thing),))


def add(draw: Draw, scene: Scene) -> Edit | None:
    """Add a thing in a free place."""
    cells = _free_cells(scene)
    if not cells:
        return None
    colours = [colour for colour in COLOURS if colour != scene.backdrop.colour]
    thing = draw.thing(draw.rng.choice(cells), colours, shifted=False)
    if (thing.colour, thing.shape) in _pairs(scene):
        return None
    after = replace(scene, things=(*scene.things, thing))
    words = _say(draw, "add", a=full_phrase(thing), place=place_phrase(draw.rng, thing.cell))
    return Edit(after, words, (_box(after, thing),))


def move(draw: Draw, scene: Scene) -> Edit | None:
    """Move a thing to a free place."""
    cells = _free_cells(scene)
    if not cells or not scene.things:
        return None
    thing = draw.rng.choice(scene.things)
    moved = replace(thing, cell=draw.rng.choice(cells), shift=(0.0, 0.0))
    words = _say(
        draw,
        "move",
        x=refer(draw.rng, scene, thing),
        spot=spot_phrase(draw.rng, moved.cell),
        place=place_phrase(draw.rng, moved.cell),
    )
    return Edit(_with(scene, thing, moved), words, (_box(scene, thing), _box(scene, moved)))


def resize(draw: Draw, scene: Scene) -> Edit | None:
    """Make a thing one step larger or smaller, of the three sizes."""
    if not scene.things:
        return None
    thing = draw.rng.choice(scene.things)
    sizes = tuple(RADII)
    grow = draw.rng.random() < 0.5
    index = sizes.index(thing.size) + (1 if grow else -1)
    if not 0 <= index < len(sizes):
        return None
    resized = replace(thing, size=sizes[index])
    words = _say(draw, "grow" if grow else "shrink", x=refer(draw.rng, scene, thing))
    return Edit(_with(scene, thing, resized), words, (_box(scene, thing), _box(scene, resized)))


def swap(draw: Draw, scene: Scene) -> Edit | None:
    """Let two things exchange their places, each to where the other's centre was."""
    if len(scene.things) < 2:
        return None
    first, second = draw.rng.sample(scene.things, 2)
    swapped = {
        first: replace(first, cell=second.cell, shift=second.shift),
        second: replace(second, cell=first.cell, shift=first.shift),
    }
    after = replace(scene, things=tuple(swapped.get(thing, thing) for thing in scene.things))
    words = _say(draw, "swap", x=refer(draw.rng, scene, first), y=refer(draw.rng, scene, second))
    return Edit(after, words, tuple(_box(scene, thing) for thing in (first, second, *swapped.values())))


def background(draw: Draw, scene: Scene) -> Edit | None:
    """Give the scene another background."""
    used = [scene.backdrop.colour, *(thing.colour for thing in scene.things)]
    used += [] if scene.creature is None else [scene.creature.colour, scene.creature.accent]
    backdrop = draw.backdrop(besides=used)
    words = _say(draw, "background", tone=tone_phrase(draw.rng, backdrop), ground=ground_phrase(draw.rng, backdrop))
    return Edit(replace(scene, backdrop=backdrop), words, None, keeps_things=True)


def letters(draw: Draw, scene: Scene) -> Edit | None:
    """Write another word of the same length on the sign."""
    if scene.sign is None:
        return None
    old = scene.sign.word
    new = draw.word(len(old), besides=old)
    words = _say(draw, "letters", old=old, new=new)
    return Edit(replace(scene, sign=replace(scene.sign, word=new)), words, (scene.sign_box(),))


def light(draw: Draw, scene: Scene) -> Edit | None:
    """Make it night or foggy."""
    choice = draw.rng.choice(("night", "fog"))
    return Edit(replace(scene, light=choice), _say(draw, choice), None)


def style(draw: Draw, scene: Scene) -> Edit | None:
    """Change the style of the whole picture.

    Outlines are drawn of scenes without patterns and signs alone: others have more lines than can be seen.
    """
    busy = scene.sign is not None or scene.backdrop.pattern not in ("plain", "faded")
    busy |= any(thing.fill != "plain" for thing in scene.things)
    choice = draw.rng.choice(("sepia", "pixelate") if busy else ("sepia", "pixelate", "outline", "outline"))
    return Edit(replace(scene, style=choice), _say(draw, choice), None)


def new_scene(draw: Draw, scene: Scene) -> Edit | None:
    """Show the creature of the reference alone, somewhere else, on another background."""
    creature = scene.creature
    if creature is None:
        return None
    cell = draw.rng.choice([cell for cell in CELLS if cell != creature.cell])
    moved = replace(creature, cell=cell, size=draw.rng.choice(("large", "large", "small")))
    backdrop: Backdrop = draw.backdrop(besides=(scene.backdrop.colour, creature.colour, creature.accent))
    words = _say(draw, "creature", place=creature_place(draw.rng, moved), ground=ground_phrase(draw.rng, backdrop))
    return Edit(Scene(size=scene.size, backdrop=backdrop, creature=moved), words, None)


def both(draw: Draw, scene: Scene) -> Edit | None:
    """Make two local edits, one after the other, in one instruction."""
    first = draw.rng.choice(LOCAL)(draw, scene)
    if first is None:
        return None
    second = draw.rng.choice(LOCAL)(draw, first.after)
    if second is None or first.touched is None or second.touched is None:
        return None
    words = _say(draw, "both", first=first.words, second=second.words)
    return Edit(second.after, words, first.touched + second.touched)


LOCAL: tuple[Maker, ...] = (recolour, remove, add, move, resize)
MAKERS: Mapping[str, Maker] = {
    "recolour": recolour,
    "remove": remove,
    "add": add,
    "move": move,
    "resize": resize,
    "swap": swap,
    "both": both,
    "background": background,
    "light": light,
    "letters": letters,
    "style": style,
    "creature": new_scene,
}


def creature_boxes(scene: Scene) -> tuple[Box, ...]:
    """Return the boxes of the creature's parts."""
    return tuple(part_box(part, scene.size) for part in creature_parts(scene))
