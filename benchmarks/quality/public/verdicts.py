"""Defines what a judge is asked about an edit, and reads what it answers."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from PIL import Image

from ....runtime.inputs.pictures import read_picture

QUESTION = """You see a picture before and after an edit. The first image is the original. The second is what a \
program made of it when it was given this instruction, here as a JSON string:
{instruction}

Give two marks from 0 to 10; fractions are allowed.
semantic_consistency: does the second image show what the instruction asks for, with the rest of the original kept? \
0 is an instruction that was ignored, or an original that cannot be recognized; 10 is the edit exactly, and nothing \
else.
perceptual_quality: looked at by itself, is the second image clean and plausible? 0 is full of artefacts, broken \
shapes or unreadable text; 10 has no flaw that you can see. The instruction does not matter here.

Answer with one JSON object and nothing else:
{{"semantic_consistency": NUMBER, "perceptual_quality": NUMBER, "reason": "one sentence"}}"""
"""The question; `{instruction}` stands for the instruction."""
LONGEST_SIDE = 1024
"""The longest side in pixels of what a judge sees."""
FORM = hashlib.sha256(f"{LONGEST_SIDE}:{QUESTION}".encode()).hexdigest()[:12]
"""The name of this question: marks that were given to others are not mixed with its own."""
_FENCED = re.compile(r"\A```(?:json)?\s*\n(.*)\n\s*```\Z", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """Holds a judge's marks of 0 to 10, and its reason."""

    semantic_consistency: float
    perceptual_quality: float
    reason: str = ""

    @property
    def overall(self) -> float:
        """The square root of the marks' product: GEdit-Bench's score of one edit."""
        return math.sqrt(self.semantic_consistency * self.perceptual_quality)


class BadAnswer(ValueError):
    """Reports a judge's answer that is not what was asked for."""


def read_marks(text: str) -> Marks:
    """Return the marks of an answer: one JSON object, by itself or in a fence of Markdown.

    Raises:
        BadAnswer: It is anything else, a mark is missing or out of range.
    """
    stripped = text.strip()
    fenced = _FENCED.match(stripped)
    try:
        found: Any = msgspec.json.decode(fenced[1] if fenced else stripped)
    except (ValueError, RecursionError):
        raise BadAnswer(f"the answer is no JSON object: {stripped[:200]!r}") from None
    if not isinstance(found, dict):
        raise BadAnswer(f"the answer is no JSON object: {stripped[:200]!r}")
    reason = found.get("reason", "")
    return Marks(
        semantic_consistency=_mark(found, "semantic_consistency"),
        perceptual_quality=_mark(found, "perceptual_quality"),
        reason=reason if isinstance(reason, str) else "",
    )


def _mark(found: dict[str, Any], name: str) -> float:
    value = found.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 10:
        raise BadAnswer(f"{name} must be a number from 0 to 10, not {value!r}")
    return float(value)


def question(instruction: str) -> str:
    """Return what a judge is asked about an edit by an instruction."""
    return QUESTION.format(instruction=msgspec.json.encode(instruction).decode())


def data_url(path: Path) -> str:
    """Return a picture as a data URL of a PNG whose longest side has at most 1024 pixels.

    Raises:
        ImageError: It cannot be read.
    """
    image = read_picture(path)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    image.save(encoded, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(encoded.getvalue()).decode()}"
