"""Runs a benchmark as a program: its errors are one line, as the command line's are."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..engine.errors import KontextError, RequestError
from .bench.child import end_with_parent


def run_main(main: Callable[[], None]) -> None:
    """Run a program; exit codes are 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted."""
    end_with_parent()
    try:
        main()
    except (KontextError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:  # by whoever sits there, who needs no stack
        sys.exit(128 + signal.SIGINT)


def first_line(error: Exception) -> str:
    """Return the type and first line of what another library raised, for a note."""
    words = str(error).strip().splitlines()
    return f"{type(error).__name__}: {words[0] if words else 'no reason given'}"


def result_file(text: str) -> Path:
    """Return a file that can be written, as a type of arguments: seen before anything is measured."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path} cannot be written; name a file in a folder that exists")
    return path


DEFAULT_BLOCKS = ("1+1", "2+2")
"""The blocks that costs are measured for if nobody names others: two sizes, so that a line can be drawn."""


def parse_blocks(text: str) -> tuple[int, int]:
    """Read "19+38" as 19 double and 38 single blocks; raise RequestError for anything else."""
    doubles, _, singles = text.partition("+")
    if not (doubles.isdecimal() and singles.isdecimal() and min(int(doubles), int(singles)) > 0):
        raise RequestError(f"blocks are DOUBLE+SINGLE, one of each at least, such as 19+38, not {text!r}")
    return int(doubles), int(singles)


def positive(text: str) -> int:
    """Return a count of at least one, as a type of arguments."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def print_rows(about: Mapping[str, object], rows: Sequence[Mapping[str, object]], *, as_json: bool) -> None:
    """Print what was measured: a line of what it is about and a line per row, or all as one JSON object."""
    if as_json:
        print(json.dumps({**about, "rows": rows}))
        return
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
