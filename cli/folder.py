"""Prints what `edit` makes of a folder of pictures."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from ..engine.errors import OptionError
from ..engine.system.changes import telling_changes
from ..runtime.folder import check_folder_request, edit_folder
from ..runtime.folder_report import FolderOptions, FolderReport, FolderStatus
from ..runtime.inputs.request import Request
from .making import RunOptions, opened
from .safeguards import FilterOptions, SigningOptions
from .terminal import notes, print_json, progress_bars, screen


def run_folder(
    bundle: Path,
    request: Request,
    out: Path,
    *,
    run: RunOptions,
    filtering: FilterOptions,
    signing: SigningOptions,
    suffix: str,
    overwrite: bool = False,
    debug_nan: bool = False,
    as_json: bool = False,
) -> bool:
    """Edit a folder's pictures, print what became of them, and return whether all have an answer."""
    check_folder_request(request)
    if out.suffix.lower() in Image.registered_extensions():
        raise OptionError(f"--image is a folder, so --out is one, too, and {out} is the name of a picture")
    probe = out / f"a{suffix}"
    signer, filters = signing.signer(probe), filtering.filters()
    options = FolderOptions(suffix=suffix, overwrite=overwrite, signer=signer, debug_nan=debug_nan)
    try:
        with (
            telling_changes([probe], notes.print),
            opened(bundle, run, graphs=True, filters=filters) as kontext,
            progress_bars() as bars,
        ):
            report = edit_folder(kontext, request, out, options, bars)
    except KeyboardInterrupt:
        notes.print(f"interrupted; what is in {out} is whole, and the same command goes on from there")
        raise
    _print(out, report, as_json=as_json)
    return not report.of(FolderStatus.FAILED)


def _print(out: Path, report: FolderReport, *, as_json: bool) -> None:
    counts = {status.value: len(report.of(status)) for status in FolderStatus}
    if as_json:
        print_json({"folder": out, **counts, "pictures": report.rows})
        return
    for row in report.of(FolderStatus.MADE):
        screen.print(f"{row.output}  seed {row.seed}  {row.milliseconds:,.0f} ms")
    for row in report.of(FolderStatus.FAILED):
        notes.print(f"{row.input} was not edited: {row.reason}")
    replaced = sum(row.replaced for row in report.rows)
    if replaced:
        notes.print(f"{replaced} of them took the place of what was there, such as answers to another request")
    screen.print(
        f"{out}: of {len(report.rows)} pictures {counts['made']} edited, {counts['kept']} skipped because their "
        f"answers are there, {counts['failed']} failed"
    )
