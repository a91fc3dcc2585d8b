"""Types the first hour of each kind of newcomer, and writes or compares the page that shows it.

python -m kontext_trt.examples.first_hour [--write] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from ...benchmarks.program import run_main
from .hour import play_hour
from .machine import ROOT
from .page import COMMAND, differences, page
from .play import StepFailed

PAGE = ROOT / "docs/tutorial-first-hour.md"


def main() -> None:
    """Type everything, and write the page if it says something else than what happened; without --write, fail."""
    parser = argparse.ArgumentParser(description="The first hour of three kinds of newcomers, typed.")
    parser.add_argument("--write", action="store_true", help="write the page; without, a page that differs is an error")
    parser.add_argument("--folder", type=Path, help="a folder to play in, which is kept; default: a temporary one")
    given = parser.parse_args()
    if given.folder is not None:
        run(given.folder, write=given.write)
        return
    with tempfile.TemporaryDirectory(prefix="first-hour-") as folder:
        run(Path(folder), write=given.write)


def run(folder: Path, *, write: bool) -> None:
    """Type everything in a folder, and write the page or compare it."""
    hour = play_hour(folder)
    for version in hour.missing:
        print(f"there is no python{version}: its part was left out", file=sys.stderr)
    found = differences(PAGE.read_text() if PAGE.exists() else "", hour.chapters)
    if not found:
        print(f"{PAGE.relative_to(ROOT)} says what happens")
    elif not write:
        raise StepFailed(
            f"{PAGE.relative_to(ROOT)} says something else than what happens; {COMMAND} writes it\n{found}"
        )
    elif hour.missing:
        raise StepFailed(f"the page is written where every interpreter is: {', '.join(hour.missing)} are missing")
    else:
        PAGE.write_text(page(hour.chapters))
        print(f"{PAGE.relative_to(ROOT)} was written")


if __name__ == "__main__":
    run_main(main)
