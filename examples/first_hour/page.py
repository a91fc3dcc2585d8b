"""Writes what was shown as a page of the documentation, and compares a page with it."""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Iterable, Sequence

from .normal import fold_command
from .play import Shown
from .steps import Chapter

COMMAND = "make first-hour"
HEAD = f"""# The first hour

What three kinds of newcomers type and see: [from diffusers](#from-diffusers), [from ComfyUI](#from-comfyui) and
[building engines](#building-engines); and a machine that [only runs bundles](#a-machine-that-only-runs-bundles). All
of it was typed by a script, in fresh virtual environments, on a machine without a GPU: `{COMMAND}` wrote this page from
what came out, and `make check` types it again and looks whether the page still says what happens. `…` stands for what
differs from run to run: times, versions, drawn seeds, sums. Progress bars are left out.

The model is the small trained one of the repository, with FLUX.1 Kontext's architecture and the files of a real
checkpoint; what it knows are shapes and colours. A real checkpoint takes the same commands.
"""


def chapter_text(chapter: Chapter, shown: Sequence[Shown]) -> str:
    """Return a chapter as Markdown."""
    return "\n\n".join([f"## {chapter.title}", _prose(chapter.intro), *(_step_text(one) for one in shown)]) + "\n"


def _prose(text: str) -> str:
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False)


def _step_text(shown: Shown) -> str:
    step = shown.step
    parts = [_prose(step.says)] if step.says else []
    if step.file is not None:
        name, text = step.file
        language = "python" if name.endswith(".py") else "text"
        parts.append(f"```{language}\n{text.rstrip()}\n```")
    language = "mistyped" if step.mistyped else "console"
    parts.append("\n".join([f"```{language}", f"$ {fold_command(step.types)}", *shown.lines, "```"]))
    return "\n\n".join(parts)


def page(chapters: Iterable[str]) -> str:
    """Return the whole page."""
    return "\n".join([HEAD, *chapters])


def split(text: str) -> dict[str, str]:
    """Return a page's chapters by their titles, fenced lines that begin with # left alone."""
    parts = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    return {part.splitlines()[0].removeprefix("## "): part.strip() for part in parts[1:]}


def differences(text: str, chapters: Iterable[str]) -> str:
    """Return how a page differs from chapters that were played, as lines of a diff; "" if it does not.

    Chapters of the page that were not played, since their interpreter is missing, are not compared.
    """
    there = split(text)
    lines: list[str] = []
    for chapter in chapters:
        title = chapter.splitlines()[0].removeprefix("## ")
        before, after = there.get(title, "").splitlines(), chapter.strip().splitlines()
        lines += difflib.unified_diff(before, after, f"page: {title}", "what happens", n=2, lineterm="")
    return "\n".join(lines)
