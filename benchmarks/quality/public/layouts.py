"""Reads the items of a benchmark: pictures in a folder, and a file beside them with a JSON object per line.

Sources of the layouts, as their projects read them: black-forest-labs/kontext-bench (an image folder of the library
`datasets`), stepfun-ai/GEdit-Bench and GEditBench-v2 (exported from Arrow, pictures as files).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from ....engine.errors import BenchmarkError
from .names import file_names

METADATA = "metadata.jsonl"
BOM = b"\xef\xbb\xbf"
MAX_KEY = 512
RESERVED = ("against", "references")
"""The names in a folder of results that are no category's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Says in which fields of a line a benchmark has what; `key` and `instruction` are the same in all of them."""

    name: str
    picture: str
    category: str
    language: str | None = None


LAYOUTS = (
    Layout(name="KontextBench", picture="file_name", category="category"),
    Layout(name="GEdit-Bench", picture="input_image", category="task_type", language="instruction_language"),
    Layout(name="GEditBench v2", picture="source_image", category="task"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Holds one edit that a benchmark asks for.

    Attributes:
        key: The name of the item, unlike all others'.
        category: What kind of edit it is, in the benchmark's own words.
        instruction: The prompt.
        picture: The file of the picture to edit, inside the benchmark's folder.
        language: The language of the instruction; "" if the layout does not say.
        file: Where its answer lies in a folder of results, as CATEGORY/KEY.png in names that are safe for files.
    """

    key: str
    category: str
    instruction: str
    picture: Path
    language: str
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Holds a benchmark that was read. `path` is its file of lines, and `items` are in the order of that."""

    path: Path
    layout: Layout
    items: tuple[Item, ...]

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories, in the order in which they first come."""
        return tuple(dict.fromkeys(item.category for item in self.items))


def read_bench(path: Path) -> Bench:
    """Read a benchmark: a folder with metadata.jsonl or one other file of JSON lines, or such a file itself.

    Raises:
        BenchmarkError: There is no such file, it is of no layout, or a line of it cannot be used; the message names
            line and field.
    """
    file = _lines_file(path)
    lines = list(_objects(file))
    if not lines:
        raise BenchmarkError(f"{file} has no line; each is a JSON object with an edit")
    layout = _layout(file, lines[0][1])
    taken: dict[tuple[str, str], int] = {}
    items = []
    for number, line in lines:
        item = _Line(file, number, line).item(layout)
        first = taken.setdefault((item.key, item.language), number)
        if first != number:
            raise BenchmarkError(f"{file}, line {number}, key: {item.key!r} is line {first}'s, too; keys are unique")
        items.append(item)
    return Bench(path=file, layout=layout, items=_placed(items))


def _lines_file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise BenchmarkError(f"{path} is no folder of a benchmark, and no file of JSON lines")
    if (path / METADATA).is_file():
        return path / METADATA
    found = sorted(file for file in path.glob("*.jsonl") if not file.name.startswith("."))
    if len(found) == 1:
        return found[0]
    there = ", ".join(file.name for file in found) or "none"
    raise BenchmarkError(
        f"{path} has no {METADATA}, and of other files of JSON lines not one but {there}; name the file itself"
    )


def _objects(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(file.read_bytes().removeprefix(BOM).split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            found = msgspec.json.decode(line)
        except (ValueError, RecursionError) as error:  # msgspec's own are ValueErrors
            raise BenchmarkError(f"{file}, line {number}: this is no JSON: {error}") from None
        if not isinstance(found, dict):
            raise BenchmarkError(f"{file}, line {number}: a line is a JSON object, not {type(found).__name__}")
        yield number, found


def _layout(file: Path, line: Mapping[str, Any]) -> Layout:
    for layout in LAYOUTS:
        if layout.picture in line and layout.category in line:
            return layout
    known = "; ".join(f"{one.picture}, {one.category} ({one.name})" for one in LAYOUTS)
    raise BenchmarkError(
        f"{file}: the first line has the fields {', '.join(map(str, line)) or 'none'}, which is no known layout. "
        f"Beside key and instruction there are: {known}"
    )


@dataclass(frozen=True, slots=True)
class _Line:
    """Takes fields from one line, or says what is wrong with them."""

    file: Path
    number: int
    fields: Mapping[str, Any]

    def item(self, layout: Layout) -> Item:
        return Item(
            key=self._key(),
            category=self._text(layout.category),
            instruction=self._text("instruction"),
            picture=self._picture(layout.picture),
            language="" if layout.language is None else self._text(layout.language),
            file="",
        )

    def _wrong(self, field: str, what: str) -> BenchmarkError:
        return BenchmarkError(f"{self.file}, line {self.number}, {field}: {what}")

    def _get(self, field: str) -> Any:
        if field not in self.fields:
            raise self._wrong(field, f"it is missing; the line has {', '.join(self.fields) or 'no fields'}")
        return self.fields[field]

    def _text(self, field: str) -> str:
        value = self._get(field)
        if not isinstance(value, str) or not value.strip():
            raise self._wrong(field, f"it must be a text that is not empty, not {_shown(value)}")
        return value

    def _key(self) -> str:
        value = self._get("key")
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        key = self._text("key")
        if len(key) > MAX_KEY:
            raise self._wrong("key", f"it has {len(key)} characters, more than {MAX_KEY}")
        return key

    def _picture(self, field: str) -> Path:
        name, folder = self._text(field), self.file.parent
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts or "\0" in name:
            raise self._wrong(field, f"{name!r} leads out of the folder; it is a path relative to {folder}")
        picture = folder / place
        if not picture.is_file():
            raise self._wrong(field, f"{folder} has no file {name!r}")
        if not picture.resolve().is_relative_to(folder.resolve()):
            raise self._wrong(field, f"{name!r} is a link that leads out of the folder; copy the file to its place")
        return picture


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, (str, int, float, bool)) or value is None else type(value).__name__


def _placed(items: list[Item]) -> tuple[Item, ...]:
    """Give each item the place of its answer. Of one key in two languages only one is ever chosen."""
    folders = file_names([item.category for item in items], reserved=RESERVED)
    names = file_names([item.key for item in items])
    return tuple(replace(item, file=f"{folders[item.category]}/{names[item.key]}.png") for item in items)
