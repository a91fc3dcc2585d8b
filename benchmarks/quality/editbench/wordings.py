"""Puts edits and scenes into plain English: many wordings in training, others held out.

A frame is a sentence with named gaps. Held-out frames are made of words that training frames hold too, in other orders.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random

from .scene import PLACE_NAMES, Backdrop, Creature, Scene, Sign, Thing

ROW_PLACES = ("at the top", "in the middle", "at the bottom")


@dataclass(frozen=True, slots=True)
class Frames:
    """Holds the sentences of one task."""

    training: tuple[str, ...]
    held_out: tuple[str, ...]

    def choose(self, rng: Random, held_out: bool, **gaps: str) -> str:
        return rng.choice(self.held_out if held_out else self.training).format(**gaps)


FRAMES: Mapping[str, Frames] = {
    "recolour": Frames(
        (
            "make {x} {colour}",
            "paint {x} {colour}",
            "turn {x} {colour}",
            "change the colour of {x} to {colour}",
            "{x} should be {colour}",
            "recolour {x} in {colour}",
            "change {x} to {colour}",
        ),
        ("paint {x} in {colour}", "turn the colour of {x} to {colour}", "the colour of {x} should be {colour}"),
    ),
    "remove": Frames(
        (
            "remove {x}",
            "delete {x}",
            "take away {x}",
            "erase {x}",
            "make {x} disappear",
            "get rid of {x}",
            "the picture should be without {x}",
        ),
        ("take {x} away", "{x} should disappear", "make the picture without {x}"),
    ),
    "add": Frames(
        (
            "add {a} {place}",
            "put {a} {place}",
            "place {a} {place}",
            "draw {a} {place}",
            "insert {a} {place}",
            "there should be {a} {place}",
            "{place}, put {a}",
        ),
        ("{place}, add {a}", "{place} there should be {a}", "{place}, draw {a}"),
    ),
    "move": Frames(
        (
            "move {x} to {spot}",
            "shift {x} to {spot}",
            "put {x} {place}",
            "place {x} {place}",
            "{x} should be {place}",
            "take {x} and put it {place}",
        ),
        ("{x} should move to {spot}", "take {x} to {spot}", "move {x} and place it {place}"),
    ),
    "grow": Frames(
        ("make {x} bigger", "make {x} larger", "enlarge {x}", "{x} should be bigger", "resize {x} to be larger"),
        ("change {x} to be bigger", "turn {x} larger", "{x} should be larger"),
    ),
    "shrink": Frames(
        ("make {x} smaller", "shrink {x}", "reduce {x}", "{x} should be smaller", "resize {x} to be smaller"),
        ("change {x} to be smaller", "turn {x} smaller"),
    ),
    "swap": Frames(
        (
            "swap {x} and {y}",
            "exchange {x} and {y}",
            "let {x} and {y} change places",
            "swap the places of {x} and {y}",
            "{x} and {y} should swap",
        ),
        ("exchange the places of {x} and {y}", "let {x} and {y} swap places", "{x} and {y} should change places"),
    ),
    "background": Frames(
        (
            "make the background {tone}",
            "change the background to {tone}",
            "put it on {ground}",
            "turn the background {tone}",
            "the background should be {tone}",
            "replace the background with {ground}",
            "place everything on {ground}",
        ),
        ("paint the background {tone}", "put everything on {ground}", "everything should be on {ground}"),
    ),
    "letters": Frames(
        (
            'change the word to "{new}"',
            'change "{old}" to "{new}"',
            'replace "{old}" with "{new}"',
            'the sign should say "{new}"',
            'make the sign say "{new}"',
            'write "{new}" on the sign',
            'change the text from "{old}" to "{new}"',
        ),
        (
            'change the sign to say "{new}"',
            'replace the word with "{new}"',
            'change the word from "{old}" to "{new}"',
        ),
    ),
    "night": Frames(
        ("make it night", "turn day into night", "change the scene to night", "it should be night"),
        ("turn it into night", "make the scene night"),
    ),
    "fog": Frames(
        ("make it foggy", "add fog", "cover the scene in fog", "it should be foggy"),
        ("make the scene foggy", "put it in fog"),
    ),
    "sepia": Frames(
        (
            "make it sepia",
            "apply a sepia style",
            "turn the picture into sepia",
            "give it a sepia look",
            "change the style to sepia",
        ),
        ("apply a sepia look", "turn it into sepia style", "the style should be sepia"),
    ),
    "pixelate": Frames(
        (
            "pixelate the picture",
            "make it pixelated",
            "apply a pixelated style",
            "give it a pixelated look",
            "turn the picture into pixel blocks",
        ),
        ("pixelate it", "the style should be pixelated", "turn it into pixel blocks"),
    ),
    "outline": Frames(
        (
            "draw only the outlines",
            "turn the picture into an outline drawing",
            "make it an outline drawing",
            "apply an outline style",
            "keep only the outlines",
        ),
        ("change it to an outline drawing", "the style should be an outline", "turn it into outlines only"),
    ),
    "creature": Frames(
        (
            "put the creature {place} on {ground}",
            "show the same creature {place} on {ground}",
            "the same creature {place}, on {ground}",
            "place this creature {place} on {ground}",
            "on {ground}, show this creature {place}",
            "the creature should be {place} on {ground}",
        ),
        (
            "draw this creature {place} on {ground}",
            "on {ground}, put the same creature {place}",
            "this creature should be {place}, on {ground}",
        ),
    ),
    "both": Frames(
        ("{first} and {second}", "{first}, then {second}", "first {first}, then {second}"),
        ("{first} and then {second}",),
    ),
    "text to image": Frames(
        (
            "{things} on {ground}",
            "a picture of {things} on {ground}",
            "{ground} with {things}",
            "draw {things} on {ground}",
            "on {ground}, {things}",
        ),
        ("put {things} on {ground}", "show {ground} with {things}", "on {ground} there should be {things}"),
    ),
}

PREFIXES = ("", "", "", "please ", "now ")
STATEMENTS = frozenset(("the", "it", "there", "this", "everything", "first", "on", "in", "at", "a", "an", "let"))
"""The first words of sentences that take no "please"."""


def sentence(rng: Random, text: str) -> str:
    """Return an instruction as people type it: with or without a polite start, a capital and a full stop."""
    if text.split(maxsplit=1)[0] not in STATEMENTS:
        text = rng.choice(PREFIXES) + text
    if rng.random() < 0.3:
        text = text[0].upper() + text[1:]
    return f"{text}." if rng.random() < 0.2 else text


def place_phrase(rng: Random, cell: tuple[int, int]) -> str:
    """Say where a place is: "in the top left corner", "on the right"."""
    name = PLACE_NAMES[cell]
    if name == "centre":
        return rng.choice(("in the centre", "in the middle"))
    if " " in name:
        return rng.choice((f"in the {name}", f"in the {name} corner"))
    return f"at the {name}" if name in ("top", "bottom") else f"on the {name}"


def spot_phrase(rng: Random, cell: tuple[int, int]) -> str:
    """Say a place as a destination: "the top left"."""
    return place_phrase(rng, cell).split(" ", 1)[1]


def article(words: str) -> str:
    """Put "a" or "an" before words."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _adjectives(thing: Thing, *, size: bool) -> str:
    words = [thing.size] if size and thing.size != "medium" else []
    words += [thing.fill] if thing.fill != "plain" else []
    return " ".join([*words, thing.colour, thing.shape])


def full_phrase(thing: Thing) -> str:
    """Say everything that can be said of a thing but its place: "a small dotted red circle"."""
    return article(_adjectives(thing, size=True))


def refer(rng: Random, scene: Scene, thing: Thing) -> str:
    """Return a description that fits one thing of the scene and no other."""
    others = [other for other in scene.things if other is not thing]
    options = [f"the {thing.shape} {place_phrase(rng, thing.cell)}"]
    if all((other.colour, other.shape) != (thing.colour, thing.shape) for other in others):
        options += [f"the {thing.colour} {thing.shape}"] * 3 + [f"the {_adjectives(thing, size=True)}"]
    if all(other.shape != thing.shape for other in others):
        options.append(f"the {thing.shape}")
    if all(other.colour != thing.colour for other in others):
        options.append(f"the {thing.colour} shape")
    return rng.choice(options)


def tone_phrase(rng: Random, backdrop: Backdrop) -> str:
    """Say a background as what can be said of it: "blue", "striped blue", "blue with stripes"."""
    if backdrop.pattern == "plain":
        return rng.choice((backdrop.colour, f"plain {backdrop.colour}"))
    nouns = {"striped": "stripes", "checked": "checks", "dotted": "dots", "faded": "a fade"}
    return rng.choice((f"{backdrop.pattern} {backdrop.colour}", f"{backdrop.colour} with {nouns[backdrop.pattern]}"))


def ground_phrase(rng: Random, backdrop: Backdrop) -> str:
    """Say a background as a noun: "a striped blue background" or "a blue background with stripes"."""
    colour, separator, pattern = tone_phrase(rng, backdrop).partition(" with ")
    return f"{article(f'{colour} background')}{separator}{pattern}"


def sign_phrase(sign: Sign) -> str:
    """Say where a sign is, its word and its colour."""
    return f'a sign {ROW_PLACES[sign.row]} saying "{sign.word}" in {sign.colour}'


def creature_place(rng: Random, creature: Creature) -> str:
    """Say where a creature is, and that it is small if it is."""
    size = f"{creature.size} " if creature.size == "small" else ""
    return f"{size}{place_phrase(rng, creature.cell)}"


def listed(phrases: Iterable[str]) -> str:
    """Join phrases to a list: "a, b and c"."""
    *start, last = phrases
    return f"{', '.join(start)} and {last}" if start else last
