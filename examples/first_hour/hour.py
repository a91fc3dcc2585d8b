"""Puts the hour together: what lies in the newcomers' folder, which chapters there are, who plays which."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from PIL import Image

from ...benchmarks.quality.editbench.samples import draw_sample
from ...version import __version__
from ..small_kontext.calibration import write_samples
from .building_engines import BUILDING_ENGINES
from .from_comfyui import FROM_COMFYUI, PICTURES
from .from_diffusers import FROM_DIFFUSERS
from .machine import CHECKOUT, ROOT, VENV, copy_checkout, environment, find_python
from .page import chapter_text
from .play import StepFailed, play
from .running_bundles import running_bundles
from .steps import Chapter, Step

WHOLE = (FROM_DIFFUSERS, FROM_COMFYUI, BUILDING_ENGINES)
"""The chapters that one interpreter plays in one folder, each with what those before it left."""
PREFERRED = (3, 11)
"""The version of Python that plays the whole, where it is there; else the one that runs this."""
WHEEL = f"kontext_trt-{__version__}-py3-none-any.whl"
RUNNING = (
    running_bundles(
        "A machine that only runs bundles",
        (3, 10),
        WHEEL,
        "`bundle` and `shapes.png` were copied here from the machine [above](#from-diffusers), and a wheel that "
        "was made there "
        f"with `pip wheel --no-deps --wheel-dir wheels ./{CHECKOUT}`. Python is 3.10, the oldest that will do.",
    ),
    running_bundles(
        "The same with Python 3.13",
        (3, 13),
        WHEEL,
        "Another environment, another interpreter, and the same picture.",
        brief=True,
    ),
)
"""The chapters that have a folder and an interpreter of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hour:
    """Holds what was played: each chapter as Markdown, and the versions of Python that were missing."""

    chapters: tuple[str, ...]
    missing: tuple[str, ...]


def play_hour(folder: Path, say: Callable[[str], None] = print) -> Hour:
    """Type every chapter in an empty folder.

    Raises:
        StepFailed: Something else came of a command than the page says, or no interpreter is there.
    """
    python = find_python(PREFERRED) or find_python((sys.version_info[0], sys.version_info[1]))
    if python is None:
        raise StepFailed("no interpreter was found that can make environments (with venv and ensurepip)")
    start = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    prepare(folder)
    played = environment(folder, python)
    chapters: list[str] = []
    missing: list[str] = []
    problems: list[str] = []
    for chapter in (*WHOLE, *RUNNING):
        try:
            if chapter is FROM_COMFYUI:
                make_trees(folder)
            if chapter is RUNNING[0]:
                make_wheel(folder, played)
            text = play_elsewhere(chapter, folder, say) if chapter.python else _text(chapter, folder, played, say)
        except StepFailed as error:
            problems.append(f"{chapter.title}\n\n{error}")
            continue
        if text is not None:
            chapters.append(text)
        else:
            missing.append(".".join(map(str, chapter.python or ())))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    say(f"{time.monotonic() - start:6.1f} s  in all, and {used.ru_utime + used.ru_stime:.0f} s of a core")
    if problems:
        raise StepFailed("\n\n".join(problems))
    return Hour(chapters=tuple(chapters), missing=tuple(missing))


def _text(chapter: Chapter, folder: Path, environment: dict[str, str], say: Callable[[str], None]) -> str:
    return chapter_text(chapter, play(chapter, folder, environment, say))


def prepare(folder: Path) -> None:
    """Lay out a folder as newcomers have it: the checkout, a checkpoint, a picture, samples to calibrate on."""
    copy_checkout(folder / CHECKOUT)
    shutil.copytree(ROOT / "examples/small_kontext/checkpoint", folder / "small-kontext")
    shutil.copy(ROOT / "docs/small-kontext/before.png", folder / "shapes.png")
    write_samples(folder / "samples", 2)
    write_pictures(folder / "pictures")


def write_pictures(folder: Path) -> None:
    """Draw a folder of pictures, and a file in it that only has a picture's name."""
    folder.mkdir()
    seeds = (seed for seed in count() if draw_sample(seed).reference() is not None)
    for name, seed in zip(PICTURES, seeds, strict=False):
        drawn = draw_sample(seed).reference()
        assert drawn is not None
        Image.fromarray(drawn).save(folder / name)
    (folder / "broken.png").write_text("no picture\n")


def make_trees(folder: Path) -> None:
    """Make ComfyUI's folders, by the newcomers' own interpreter: it has torch by now."""
    program = [str(folder / VENV / "bin/python"), "-m", "kontext_trt.examples.first_hour.comfyui_tree", str(folder)]
    done = subprocess.run(
        program,
        env={"PYTHONPATH": str(folder / CHECKOUT / ".links"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise StepFailed(f"ComfyUI's folders could not be made\n{done.stderr}")
    shutil.move(folder / "ComfyUI/models/tokenizers", folder / "tokenizers")


def make_wheel(folder: Path, played: dict[str, str]) -> None:
    """Make the wheel that other machines get."""
    step = Step(says="", types=f"pip wheel --no-deps --wheel-dir wheels ./{CHECKOUT}")
    play(Chapter(title="", intro="", steps=(step,)), folder, played, lambda _: None)
    if not (folder / "wheels" / WHEEL).is_file():
        raise StepFailed(f"no {WHEEL} was made")


def play_elsewhere(chapter: Chapter, folder: Path, say: Callable[[str], None]) -> str | None:
    """Type a chapter with its own interpreter in a folder of its own; None if the interpreter is missing."""
    assert chapter.python is not None
    python = find_python(chapter.python)
    if python is None:
        return None
    own = folder / "-".join(map(str, chapter.python))
    own.mkdir()
    shutil.copytree(folder / "bundle", own / "bundle")
    shutil.copy(folder / "shapes.png", own)
    return _text(chapter, own, environment(own, python), say)
