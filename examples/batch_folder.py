"""Edits a folder of pictures: `python examples/batch_folder.py BUNDLE FOLDER PROMPT OUT`.

Interrupted with Ctrl-C and started again, it goes on with what is missing.
"""

import sys
import time

from kontext_trt import FolderStatus, Kontext, Request, Sampling, edit_folder


class PrintedProgress:
    """Prints how many pictures are done, and how long the rest will take at the pace so far."""

    def start(self, task: str, total: float) -> None:
        """Begin a task of so many pictures."""
        self._task, self._total, self._done, self._start = task, total, 0.0, time.monotonic()

    def advance(self, amount: float) -> None:
        """Count a part of a picture."""
        self._done += amount
        left = (time.monotonic() - self._start) * (self._total - self._done) / self._done if self._done else 0.0
        print(f"\r{self._task}: {self._done:.1f} done, about {left:.0f} s left ", end="", flush=True)


def main(
    bundle: str = "demo/bundle",
    folder: str = "docs/small-kontext",
    prompt: str = "make the scene night",
    out: str = "night",
    steps: str = "28",
) -> None:
    """Edit every picture of a folder, and say what became of each."""
    request = Request(prompt=prompt, image=folder, sampling=Sampling(steps=int(steps)))
    with Kontext.open(bundle) as kontext:
        report = edit_folder(kontext, request, out, progress=PrintedProgress())
    print()
    for row in report.rows:
        said = row.reason if row.status is FolderStatus.FAILED else f"{row.output}, seed {row.seed}"
        print(f"{row.status.value}  {row.input}: {said}")
    if report.of(FolderStatus.FAILED):
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
