"""Holds what is typed on a machine that runs bundles and exports none, by one version of Python or another."""

from __future__ import annotations

from .from_diffusers import AFTER, BLACK
from .pictures import is_not_there, lies_there, same
from .steps import Chapter, Step

READING = """import json
from pathlib import Path

answer = json.loads(Path("answer.json").read_text())
(picture,) = answer["pictures"]
print(picture["path"], (picture["width"], picture["height"]), picture["steps"], "steps by", picture["executor"])
"""
"""The program that reads what `edit --json` says."""


def running_bundles(title: str, version: tuple[int, int], wheel: str, intro: str, *, brief: bool = False) -> Chapter:
    """Return the chapter of a Python's version, whose environment has a wheel and ONNX Runtime alone.

    A brief one neither looks at the bundle before it is used, nor asks for an export.
    """
    python = f"python{version[0]}.{version[1]}"
    steps = (
        Step(
            says="A fresh environment:",
            types=f"{python} -m venv venv && source venv/bin/activate",
            checks=(lies_there("venv/bin/pip"),),
        ),
        Step(
            says="The wheel, with what runs bundles on a CPU. torch does not come with it:",
            types=f"pip install '../wheels/{wheel}[cpu]'",
            quiet=True,
            checks=(lies_there("venv/bin/kontext-trt"),),
        ),
        Step(
            says="What came from the other machine is looked at, every tensor of it:",
            types="kontext-trt inspect --verify bundle",
            shows=("denoiser",),
        ),
        Step(
            says="The edit:",
            types=f'kontext-trt edit bundle --image shapes.png --prompt "{BLACK}" --out black.png --seed 0',
            shows=("black.png 128x128 seed 0",),
            checks=(same("black.png", f"../{AFTER}"), same("black.png", "../black.png")),
        ),
        Step(
            says="The same for programs, as JSON:",
            types=f'kontext-trt edit bundle --image shapes.png --prompt "{BLACK}" --steps 4 --seed 0 --json '
            "> answer.json",
            checks=(lies_there("edited.png"), lies_there("answer.json")),
        ),
        Step(
            says="In `read.py`:",
            types="python read.py",
            file=("read.py", READING),
            shows=("edited.png (128, 128) 4 steps by onnxruntime (cpu)",),
        ),
        Step(
            says="An export belongs on the other machine, and here says what is missing:",
            types="kontext-trt export ../small-kontext another",
            code=1,
            shows=("error:", "torch"),
            checks=(is_not_there("another"),),
        ),
    )
    left_out = ("kontext-trt inspect", "kontext-trt export") if brief else ()
    kept = tuple(step for step in steps if not step.types.startswith(left_out))
    return Chapter(title=title, intro=intro, python=version, steps=kept)
