"""Holds what is typed on a machine that runs bundles and exports none, by one version of Python or another."""

from __future__ import annotations

from .from_diffusers import AFTER, BLACK
from .pictures import is_not_there, lies_there, same
from .steps import Chapter, Step


def running_bundles(title: str, version: tuple[int, int], wheel: str, intro: str) -> Chapter:
    """Return the chapter of a Python's version, whose environment has a wheel and ONNX Runtime alone."""
    python = f"python{version[0]}.{version[1]}"
    return Chapter(
        title=title,
        intro=intro,
        python=version,
        steps=(
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
                '> answer.json && python -c "import json; '
                "print(json.load(open('answer.json'))['pictures'][0]['seed'])\"",
                shows=("0",),
                checks=(lies_there("edited.png"),),
            ),
            Step(
                says="An export belongs on the other machine, and here says what is missing:",
                types="kontext-trt export ../small-kontext another",
                code=1,
                shows=("error:", "torch"),
                checks=(is_not_there("another"),),
            ),
        ),
    )
