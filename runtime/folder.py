"""Edits every picture of a folder, and goes on where an earlier run ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from PIL import Image

from ..engine.errors import ContentRefused, ImageError, RequestError
from ..engine.lora.read import read_lora
from ..engine.lora.record import lora_records
from ..engine.progress import Progress, Silent
from ..engine.system.files import sha256_file, visible_files
from .filters.interface import Stage
from .folder_records import AnswerRecord, FolderRecords, open_records
from .folder_report import FolderOptions, FolderReport, FolderRow, FolderStatus
from .inputs.placement import Fit
from .inputs.references import ReferenceMethod
from .inputs.request import Request
from .kontext import Kontext
from .outputs.picture_file import check_output
from .outputs.provenance import check_signed_format
from .outputs.result import Result


def edit_folder(
    kontext: Kontext,
    request: Request,
    out: Path | str,
    options: FolderOptions | None = None,
    progress: Progress | None = None,
) -> FolderReport:
    """Edit every picture of a folder, each as a request says, and write the answers under the pictures' names.

    What is asked for, and of which bytes, is recorded in `results.jsonl` beside the answers. An answer that is there,
    of the same request, picture and bundle, is kept: a run that was interrupted is gone on with by the same call. With
    a seed each picture gets that seed; without, one is drawn for each, and an answer of any seed is kept. A picture
    that cannot be read or is refused does not stop the others.

    Args:
        kontext: An opened bundle.
        request: What is asked for; its `image` is the folder, whose own files are edited, not those in folders in it.
        out: The folder of the answers, which is made if it is missing.
        options: How answers are written; None for the defaults.
        progress: Who hears how many pictures are done.

    Returns:
        What became of each picture.

    Raises:
        RequestError: The request has what is of one picture alone (a mask, further references, several prompts or
            seeds, noise), an answer would replace what `edit_folder` has not made, or another run is writing there.
        ImageError: There is no such folder, or no picture in it.
        KontextError: What `Kontext.run` raises that is not about one of the pictures.
        OSError: An answer cannot be written.
    """
    options, progress, out = options or FolderOptions(), progress or Silent(), Path(out)
    folder = check_folder_request(request)
    pictures = _named(_pictures(folder), folder, out, options)
    asked = _asked(kontext, request, options)
    with open_records(out) as records:
        kept = {path: _kept(records, path, place, asked, request) for path, place in pictures.items()}
        waiting = [path for path in pictures if kept[path] is None]
        if not options.overwrite:
            _check_free([pictures[path] for path in waiting], records)
        progress.start(f"editing {len(waiting)} of {len(pictures)} pictures", len(waiting))
        run = _Run(kontext=kontext, asked=asked, records=records, options=options, progress=progress)
        rows = [
            run.edit(request, path, place)
            if (record := kept[path]) is None
            else FolderRow(input=path, output=place, status=FolderStatus.KEPT, seed=record.request.get("seed"))
            for path, place in pictures.items()
        ]
    return FolderReport(rows=tuple(rows))


def check_folder_request(request: Request) -> Path:
    """Return the folder that a request is about, before anything is loaded.

    Raises:
        RequestError: The request has what is of one picture alone.
        ImageError: There is no such folder.
    """
    one_alone = {
        "further references": len(request.sources) > 1,
        "a mask": request.mask is not None,
        "several prompts": len(request.prompts) > 1,
        "several seeds": len(request.sampling.seeds) > 1,
        "noise": request.sampling.noise is not None,
    }
    if found := [name for name, given in one_alone.items() if given]:
        raise RequestError(
            f"the pictures of a folder are edited each by itself, with one prompt and one seed; {' and '.join(found)} "
            "must be left out, or edit the pictures one by one"
        )
    source = request.sources[0] if request.sources else None
    if not isinstance(source, (str, Path)) or not Path(source).is_dir():
        raise ImageError(f"the image of a folder's request is a folder of pictures, and {source} is none")
    return Path(source)


def _pictures(folder: Path) -> list[Path]:
    """Return the files of a folder that have the suffix of a format that Pillow reads, by name."""
    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN}
    found = [path for path in visible_files(folder, "*") if path.suffix.lower() in suffixes and path.is_file()]
    if not found:
        raise ImageError(f"there is no picture in {folder}; it may have .png, .jpg, .webp and others that Pillow reads")
    return found


def _named(pictures: Sequence[Path], folder: Path, out: Path, options: FolderOptions) -> dict[Path, Path]:
    """Return the place of each picture's answer. Raises RequestError if two have one, or pictures would be replaced."""
    if out.exists() and out.resolve() == folder.resolve():
        raise RequestError(f"{out} is the folder of the pictures themselves; answers need another folder")
    probe = out / f"a{options.suffix}"
    file_format = check_output(probe)
    if options.signer is not None:
        check_signed_format(probe, file_format)
    places: dict[Path, Path] = {}
    taken: dict[Path, Path] = {}
    for path in pictures:
        place = out / f"{path.stem}{options.suffix}"
        if place in taken:
            raise RequestError(f"{taken[place].name} and {path.name} would both become {place.name}; rename one")
        taken[place] = path
        places[path] = place
    return places


def _asked(kontext: Kontext, request: Request, options: FolderOptions) -> dict[str, Any]:
    """Return what is asked for as JSON holds it, the bundle's defaults filled in; the seed is left out."""
    chosen = request.chosen_loras
    loras = kontext.loras if chosen is None else lora_records((read_lora(Path(one.path)), one.scale) for one in chosen)
    return {
        "prompt": request.prompts[0],
        **request.sampling.recorded(kontext.bundle.manifest.model.flow),
        "strength": request.sampling.strength,
        "fit": cast(Fit, request.fit).value,
        "references": cast(ReferenceMethod, request.references).value,
        "loras": [[lora.sha256, lora.adapter_config, lora.scale] for lora in loras],
        "bundle": kontext.bundle.fingerprint,
        "signer": None if options.signer is None else options.signer.name,
    }


def _kept(
    records: FolderRecords, path: Path, place: Path, asked: dict[str, Any], request: Request
) -> AnswerRecord | None:
    """Return the record of the answer that is there already, None if it has to be made."""
    record = records.find(place.name)
    if record is None or record.asked != asked:
        return None
    if request.sampling.seed not in (None, record.request.get("seed")):
        return None
    try:
        return record if sha256_file(path) == record.input_sha256 else None
    except OSError:  # which editing it says
        return None


def _check_free(places: Sequence[Path], records: FolderRecords) -> None:
    """Raise RequestError if one of the answers would replace what no run over a folder has left as it is."""
    strange = [place for place in places if place.exists() and not records.is_own(place.name)]
    if strange:
        others = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
        raise RequestError(
            f"{strange[0]}{others} would be replaced, and no run over a folder has left it as it is; choose another "
            "folder, or allow it with --overwrite (in Python overwrite=True)"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """Holds what all pictures of a run have in common."""

    kontext: Kontext
    asked: dict[str, Any]
    records: FolderRecords
    options: FolderOptions
    progress: Progress

    def edit(self, request: Request, path: Path, place: Path) -> FolderRow:
        """Make one answer and its record; a picture that cannot be edited is a row that says why."""
        part = _Part(self.progress)
        try:
            digest = sha256_file(path)
            result = self.kontext.run(replace(request, image=path), on_step=part, debug_nan=self.options.debug_nan)
        except (ImageError, RequestError, OSError) as error:
            return FolderRow(input=path, output=place, status=FolderStatus.FAILED, reason=str(error))
        except ContentRefused as error:
            if error.stage == Stage.PROMPT.value:  # all pictures have the same
                raise
            return FolderRow(input=path, output=place, status=FolderStatus.FAILED, reason=str(error))
        finally:
            part.finish()
        replaced = place.exists()
        self._save(result, path, digest, place)
        return FolderRow(
            input=path,
            output=place,
            status=FolderStatus.MADE,
            seed=result.seed,
            milliseconds=result.milliseconds["total"],
            replaced=replaced,
        )

    def _save(self, result: Result, path: Path, digest: str, place: Path) -> None:
        """Write the answer between two records, so that one whose run was killed meanwhile is known as its own."""
        record = AnswerRecord(
            input=path.name,
            input_sha256=digest,
            output=place.name,
            output_sha256="",
            asked=self.asked,
            request=result.request(result.outputs[0]),
        )
        self.records.add(record)
        signer = self.options.signer
        result.save(place, signer=signer, inputs=path, overwrite=self.options.overwrite)
        self.records.add(replace(record, output_sha256=sha256_file(place)))


class _Part:
    """Tells a progress that counts pictures of each step as a part of one."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._left = 1.0

    def __call__(self, done: int, of: int) -> None:
        self._progress.advance(1 / of)
        self._left -= 1 / of

    def finish(self) -> None:
        """Tell what is left of the picture."""
        self._progress.advance(max(0.0, self._left))
