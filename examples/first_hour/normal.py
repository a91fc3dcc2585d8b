"""Takes out of a command's output what differs from run to run and from machine to machine."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

WIDTH = 86
"""The columns of the terminal that commands are typed in, and of the page."""
ANYTHING = "…"
"""The sign on the page for what differs."""
RULES: tuple[tuple[str, str], ...] = (
    (r"\b[0-9a-f]{12,}\b", ANYTHING),
    (r" \((tokenize|prepare) \d.*\)$", f" ({ANYTHING} per stage)"),
    (r"\b20\d\d-\d\d-\d\dT[\d:.+]+Z?", ANYTHING),
    (r"\b[\d,.]+ (ms|s|KiB|it/s)(?![\w/])", rf"{ANYTHING} \1"),
    (r"(?<= with )[\d.]+ MiB", f"{ANYTHING} MiB"),
    (r"\b([a-zA-Z][\w-]*) \d+(\.\d+)+(\+\w+)?(?=[,:;]|$)", rf"\1 {ANYTHING}"),
    (r"^Python .*", f"Python {ANYTHING} on Linux"),
    (
        r"the NVIDIA driver (is not installed|cannot be used \([^)]*\))|the driver shows no device \([^)]*\)",
        "the NVIDIA driver is not installed",
    ),
)
"""The patterns of what differs in one line, with what stands for it."""


def is_progress(line: str) -> bool:
    """Tell the lines that a progress bar left."""
    return "━" in line or " ETA " in line


def same_width(match: re.Match[str]) -> str:
    """Return the sign as wide as what it stands for, so that a table's columns stay where they are."""
    return ANYTHING.ljust(len(match[0]))


def normal_line(line: str) -> str:
    """Return a line without what differs."""
    if re.search(r" \d+ %  | \d+x\d+  +\d+\.\d", line):  # a row of decibels
        return re.sub(r"\b\d+\.\d+\b", same_width, line).rstrip()
    line = re.sub(r"\b\d+\.\d(?= dB)", ANYTHING, line)
    for pattern, stands in RULES:
        line = re.sub(pattern, stands, line)
    if "sm_" in line or "activations" in line:
        line = re.sub(r"\b[\d.]+ MiB", f"{ANYTHING} MiB", line)
    return line.rstrip()


def normal(output: str, folder: Path) -> list[str]:
    """Return the lines of an output: without progress bars, this run's folder, and what differs."""
    lines = [line.rstrip() for line in output.replace(f"{folder}/", "").replace(str(folder), ".").splitlines()]
    kept = [line for line in lines if not is_progress(line)]
    while kept and not kept[0]:
        kept.pop(0)
    return [normal_line(line) for line in kept if line]


def fold_command(command: str) -> str:
    """Return a command as it may be typed in several lines, which keep options beside their values."""
    lines = [""]
    for word in re.findall(r"""(?:--?[a-z][\w-]*\s+(?=[^-\s]))?(?:"[^"]*"|'[^']*'|[^\s"'])+""", command):
        if lines[-1] and len(lines[-1]) + len(word) > WIDTH - 5:
            lines.append(f"    {word}")
        else:
            lines[-1] = f"{lines[-1]} {word}".lstrip(" ") if len(lines) == 1 else f"{lines[-1]} {word}"
    return " \\\n".join(lines)


def fold(line: str) -> list[str]:
    """Fold a line that is wider than the page, each further line indented by two more than the first."""
    if len(line) <= WIDTH:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.wrap(
        line.strip(),
        WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
