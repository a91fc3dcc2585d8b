"""Folders of made benchmarks, and a bundle's stand-in that answers them at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from PIL import Image

from kontext_trt import Kontext, Request

CATEGORIES = (
    "Character Reference",
    "Style Reference",
    "Instruction Editing - Global",
    "Instruction Editing - Local",
    "Text Editing",
)


def line(number: int, **fields: Any) -> dict[str, Any]:
    """A line as KontextBench has it."""
    return {
        "file_name": f"images/{number:04d}.png",
        "instruction": f"make it number {number}",
        "category": CATEGORIES[number % len(CATEGORIES)],
        "key": f"{number:04d}",
        **fields,
    }


def write_pictures(folder: Path, count: int) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((64, 48), Image.Resampling.BICUBIC)
        image.save(folder / f"images/{number:04d}.png")


def write_lines(folder: Path, lines: list[Any], name: str = "metadata.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in lines))
    return folder


def kontext_bench(folder: Path, count: int) -> Path:
    """A folder in KontextBench's form."""
    write_pictures(folder, count)
    return write_lines(folder, [line(number) for number in range(count)])


@dataclass(slots=True)
class QuickKontext:
    """Answers with noise of the request's seed, and `offset` added; of prompts in `broken` with their errors."""

    fingerprint: str = "ab" * 32
    offset: int = 0
    size: tuple[int, int] = (32, 16)
    executor_name: str = "quick"
    broken: dict[str, Exception] = field(default_factory=dict)
    after: Callable[[int], None] = lambda count: None
    requests: list[Request] = field(default_factory=list)
    loaded: int = 0

    @property
    def opened(self) -> Kontext:
        return cast("Kontext", self)

    @property
    def bundle(self) -> Any:
        flow = SimpleNamespace(steps=28, guidance=2.5)
        return SimpleNamespace(fingerprint=self.fingerprint, manifest=SimpleNamespace(model=SimpleNamespace(flow=flow)))

    @property
    def executor(self) -> Any:
        return SimpleNamespace(name=self.executor_name)

    def __enter__(self) -> Kontext:
        return self.opened

    def __exit__(self, *raised: object) -> None:
        pass

    def load(self) -> None:
        self.loaded += 1

    def run(self, request: Request) -> Any:
        self.requests.append(request)
        self.after(len(self.requests))
        if (error := self.broken.get(request.prompts[0])) is not None:
            raise error
        width, height = self.size
        pixels = np.random.default_rng(request.sampling.seeds[0]).integers(0, 200, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(pixels + np.uint8(self.offset))

        def save(path: Path) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)

        return SimpleNamespace(save=save, size=self.size, milliseconds={"total": 5.0})
