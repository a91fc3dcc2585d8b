"""Folders of pictures: each is edited once, runs go on, and nothing that is not an answer is replaced."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from certificates import write_files
from PIL import Image

from kontext_trt import (
    Content,
    ContentRefused,
    CredentialState,
    FolderOptions,
    FolderReport,
    FolderStatus,
    ImageError,
    Kontext,
    Masking,
    PictureSigner,
    ProvenanceError,
    Request,
    RequestError,
    Sampling,
    Verdict,
    edit_folder,
    read_credentials,
)
from kontext_trt.engine.system.locks import exclusive_if_free
from kontext_trt.runtime.filters.interface import Stage
from kontext_trt.runtime.folder_records import RECORDS

MADE, KEPT, FAILED = FolderStatus.MADE, FolderStatus.KEPT, FolderStatus.FAILED


@pytest.fixture
def photos(tmp_path: Path, picture: Callable[..., Image.Image]) -> Path:
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    for name in ("c.png", "a.jpg", "b.webp", "deeper/d.png"):
        picture(64, 48).save(folder / name)
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".hidden.png").write_text("not one either")
    return folder


def asking(photos: Path, prompt: str = "make it night", **sampling: object) -> Request:
    return Request(prompt=prompt, image=photos, sampling=Sampling(steps=1, **sampling))  # pyright: ignore[reportArgumentType]


def statuses(report: FolderReport) -> list[FolderStatus]:
    return [row.status for row in report.rows]


def request_in(path: Path) -> dict[str, object]:
    with Image.open(path) as image:
        return json.loads(image.info["kontext-trt"])


class Heard:
    """Hears of progress, and interrupts once so many pictures are done."""

    def __init__(self, until: float = 1e9) -> None:
        self.task, self.total, self.done, self._until = "", 0.0, 0.0, until

    def start(self, task: str, total: float) -> None:
        self.task, self.total = task, total

    def advance(self, amount: float) -> None:
        self.done += amount
        if self.done >= self._until:
            raise KeyboardInterrupt


def test_every_picture_of_a_folder_is_edited(kontext: Kontext, photos: Path, tmp_path: Path):
    heard = Heard()
    report = edit_folder(kontext, asking(photos), tmp_path / "out", progress=heard)
    assert [(row.input.name, row.output.name) for row in report.rows] == [
        ("a.jpg", "a.png"),
        ("b.webp", "b.png"),
        ("c.png", "c.png"),
    ]
    assert statuses(report) == [MADE] * 3
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.png", "b.png", "c.png", RECORDS}
    assert (heard.task, heard.total) == ("editing 3 of 3 pictures", 3)
    assert heard.done == pytest.approx(3)
    assert len({row.seed for row in report.rows}) == 3, "one is drawn for each"
    for row in report.rows:
        assert request_in(row.output)["seed"] == row.seed
        assert row.milliseconds > 0


def test_a_fixed_seed_is_each_pictures_and_gives_what_one_edit_gives(kontext: Kontext, photos: Path, tmp_path: Path):
    report = edit_folder(kontext, asking(photos, seed=7), tmp_path / "out")
    assert [row.seed for row in report.rows] == [7, 7, 7]
    alone = kontext.edit(photos / "c.png", "make it night", steps=1, seed=7)
    with Image.open(tmp_path / "out" / "c.png") as found:
        assert found.convert("RGB").tobytes() == alone.image.tobytes()


def test_a_second_run_keeps_answers_of_the_same_request(kontext: Kontext, photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    first = edit_folder(kontext, asking(photos), out)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.glob("*.png")}
    heard = Heard()
    again = edit_folder(kontext, asking(photos), out, progress=heard)
    assert statuses(again) == [KEPT] * 3
    assert [row.seed for row in again.rows] == [row.seed for row in first.rows]
    assert (heard.task, heard.total) == ("editing 0 of 3 pictures", 0)
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.glob("*.png")} == before


@pytest.mark.parametrize("what", ["prompt", "seed", "steps", "guidance", "fit", "picture", "answer", "missing"])
def test_whatever_differs_is_made_anew(kontext: Kontext, photos: Path, tmp_path: Path, what: str):
    out = tmp_path / "out"
    for name in ("a.jpg", "b.webp"):
        (photos / name).unlink()
    request = asking(photos, seed=7)
    edit_folder(kontext, request, out)
    sampling, options = request.sampling, FolderOptions()
    if what == "prompt":
        request = asking(photos, "make it day", seed=7)
    elif what == "fit":
        request = replace(request, fit="crop")
    elif what == "picture":
        Image.new("RGB", (64, 48), "red").save(photos / "c.png")
    elif what == "answer":
        (out / "c.png").write_bytes((out / "c.png").read_bytes() + b"touched")
        options = FolderOptions(overwrite=True)
    elif what == "missing":
        (out / "c.png").unlink()
    else:
        changed = {"seed": 8, "steps": 2, "guidance": 3.0}[what]
        request = replace(request, sampling=replace(sampling, **{what: changed}))
    (row,) = edit_folder(kontext, request, out, options).rows
    assert (row.status, row.replaced) == (MADE, what != "missing")
    assert statuses(edit_folder(kontext, request, out)) == [KEPT]


def test_defaults_that_are_named_are_the_same_request(kontext: Kontext, photos: Path, tmp_path: Path):
    request = asking(photos, seed=7)
    edit_folder(kontext, request, tmp_path / "out")
    named = replace(request, sampling=replace(request.sampling, guidance=kontext.bundle.manifest.model.flow.guidance))
    assert statuses(edit_folder(kontext, named, tmp_path / "out")) == [KEPT] * 3
    without_seed = replace(request, sampling=replace(request.sampling, seed=None))
    report = edit_folder(kontext, without_seed, tmp_path / "out")
    assert statuses(report) == [KEPT] * 3, "who asks for no seed takes any"
    assert [row.seed for row in report.rows] == [7] * 3


def test_an_interrupted_run_leaves_whole_files_and_goes_on(kontext: Kontext, photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        edit_folder(kontext, asking(photos), out, progress=Heard(until=1.5))
    assert {path.name for path in out.iterdir()} == {"a.png", RECORDS}
    drawn = request_in(out / "a.png")["seed"]
    report = edit_folder(kontext, asking(photos), out)
    assert statuses(report) == [KEPT, MADE, MADE]
    assert report.rows[0].seed == drawn


def test_a_run_that_was_killed_between_answer_and_record_goes_on(kontext: Kontext, photos: Path, tmp_path: Path):
    """The record before the answer is there, the one after it is torn."""
    out = tmp_path / "out"
    edit_folder(kontext, asking(photos, seed=7), out)
    records = out / RECORDS
    records.write_bytes(records.read_bytes()[:-40])
    report = edit_folder(kontext, asking(photos, seed=7), out)
    assert statuses(report) == [KEPT, KEPT, MADE]
    assert statuses(edit_folder(kontext, asking(photos, seed=7), out)) == [KEPT] * 3


def test_a_picture_that_cannot_be_read_does_not_stop_the_others(kontext: Kontext, photos: Path, tmp_path: Path):
    (photos / "b.webp").write_bytes(b"cut short")
    (photos / "empty.png").touch()
    heard = Heard()
    report = edit_folder(kontext, asking(photos), tmp_path / "out", progress=heard)
    assert statuses(report) == [MADE, FAILED, MADE, FAILED]
    assert "b.webp is not a picture in a format that Pillow reads" in report.rows[1].reason
    assert "empty.png is empty (0 bytes)" in report.rows[3].reason
    assert not report.rows[1].output.exists()
    assert heard.done == pytest.approx(4)


class Refusing:
    """Refuses at one stage."""

    def __init__(self, stage: Stage) -> None:
        self.name, self.stages = "refusing", frozenset({stage})

    def check(self, content: Content) -> Verdict:
        return Verdict(allowed=False, reason="it may not be")


def test_a_refused_picture_is_a_row_and_a_refused_prompt_the_end(bundle_path: Path, photos: Path, tmp_path: Path):
    with Kontext.open(bundle_path, executor="cpu", filters=[Refusing(Stage.INPUT)]) as kontext:
        report = edit_folder(kontext, asking(photos), tmp_path / "out")
    assert statuses(report) == [FAILED] * 3
    assert "it may not be" in report.rows[0].reason
    with (
        Kontext.open(bundle_path, executor="cpu", filters=[Refusing(Stage.PROMPT)]) as kontext,
        pytest.raises(ContentRefused),
    ):
        edit_folder(kontext, asking(photos), tmp_path / "out")


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_the_suffix_chooses_the_format(kontext: Kontext, photos: Path, tmp_path: Path, suffix: str):
    options = FolderOptions(suffix=suffix)
    report = edit_folder(kontext, asking(photos), tmp_path / "out", options)
    assert [row.output.name for row in report.rows] == [f"{name}{suffix}" for name in "abc"]
    assert statuses(edit_folder(kontext, asking(photos), tmp_path / "out", options)) == [KEPT] * 3


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"mask": Masking(mask=(0, 0, 8, 8))}, "a mask"),
        ({"prompt": ["x", "y"]}, "several prompts"),
        ({"sampling": Sampling(seed=(1, 2))}, "several seeds"),
        ({"sampling": Sampling(seed=(1, 2)), "prompt": ["x", "y"]}, "several prompts and several seeds"),
    ],
)
def test_what_is_of_one_picture_is_refused_by_name(kontext: Kontext, photos: Path, tmp_path: Path, fields, named: str):
    with pytest.raises(RequestError, match=rf"edited each by itself, .*; {named} must be left out"):
        edit_folder(kontext, replace(asking(photos), **fields), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_further_references_are_refused(kontext: Kontext, photos: Path, tmp_path: Path):
    with pytest.raises(RequestError, match="further references must be left out"):
        edit_folder(kontext, replace(asking(photos), image=(photos, photos / "c.png")), tmp_path / "out")


def test_folders_that_are_none_or_hold_nothing_are_refused(kontext: Kontext, photos: Path, tmp_path: Path):
    for image in (photos / "c.png", tmp_path / "nowhere", None):
        with pytest.raises(ImageError, match=r"is a folder of pictures, and .* is none"):
            edit_folder(kontext, replace(asking(photos), image=image), tmp_path / "out")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ImageError, match=r"there is no picture in .*empty; it may have .png"):
        edit_folder(kontext, asking(empty), tmp_path / "out")


def test_pictures_are_never_replaced(kontext: Kontext, photos: Path, tmp_path: Path):
    with pytest.raises(RequestError, match="is the folder of the pictures themselves"):
        edit_folder(kontext, asking(photos), photos / "deeper" / "..")
    out = tmp_path / "out"
    out.mkdir()
    for name in ("a.png", "b.png"):
        shutil.copy(photos / "c.png", out / name)
    with pytest.raises(RequestError, match=r"a\.png and 1 more would be replaced, and no run .* --overwrite"):
        edit_folder(kontext, asking(photos), out)
    assert (out / "a.png").read_bytes() == (photos / "c.png").read_bytes()
    assert statuses(edit_folder(kontext, asking(photos), out, FolderOptions(overwrite=True))) == [MADE] * 3


def test_an_answer_that_somebody_has_worked_on_is_not_replaced(kontext: Kontext, photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    edit_folder(kontext, asking(photos), out)
    Image.new("RGB", (8, 8)).save(out / "b.png")
    with pytest.raises(RequestError, match=r"b\.png would be replaced"):
        edit_folder(kontext, asking(photos), out)


def test_two_pictures_of_one_name_are_refused(kontext: Kontext, photos: Path, tmp_path: Path):
    shutil.copy(photos / "c.png", photos / "a.png")
    with pytest.raises(RequestError, match=r"a\.jpg and a\.png would both become a\.png; rename one"):
        edit_folder(kontext, asking(photos), tmp_path / "out")


def test_two_runs_do_not_write_into_one_folder(kontext: Kontext, photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    descriptor = os.open(out / RECORDS, os.O_RDWR | os.O_CREAT)
    with exclusive_if_free(descriptor) as held:
        assert held
        with pytest.raises(RequestError, match="another process is writing answers into"):
            edit_folder(kontext, asking(photos), out)


def test_a_place_that_is_no_folder_is_refused(kontext: Kontext, photos: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="file"):
        edit_folder(kontext, asking(photos), tmp_path / "file")
    with pytest.raises(RequestError, match=r"no picture format has the suffix '\.xyz'"):
        edit_folder(kontext, asking(photos), tmp_path / "out", FolderOptions(suffix=".xyz"))


def test_lines_that_are_no_records_are_passed_over(
    kontext: Kontext, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    out = tmp_path / "out"
    edit_folder(kontext, asking(photos), out)
    with (out / RECORDS).open("a") as file:
        file.write("{}\nnothing\n")
    assert statuses(edit_folder(kontext, asking(photos), out)) == [KEPT] * 3
    assert "2 lines are no records of answers" in caplog.text


def test_answers_are_signed_and_unsigned_ones_made_anew(kontext: Kontext, photos: Path, tmp_path: Path):
    out, files = tmp_path / "out", write_files(tmp_path)
    signed = FolderOptions(signer=PictureSigner.open(files.chain, files.key))
    edit_folder(kontext, asking(photos), out)
    assert statuses(edit_folder(kontext, asking(photos), out, signed)) == [MADE] * 3
    assert statuses(edit_folder(kontext, asking(photos), out, signed)) == [KEPT] * 3
    assert read_credentials((out / "b.png").read_bytes()).state is CredentialState.UNKNOWN_SIGNER
    with pytest.raises(ProvenanceError, match=r"are not signed; use \.png"):
        edit_folder(kontext, asking(photos), out, replace(signed, suffix=".bmp"))


def test_loras_are_a_part_of_the_request(branched_bundle, lora_file, photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    with Kontext.open(branched_bundle(), executor="cpu") as kontext:
        named = replace(asking(photos), loras=[lora_file(0)])
        assert statuses(edit_folder(kontext, named, out)) == [MADE] * 3
        assert statuses(edit_folder(kontext, named, out)) == [KEPT] * 3
        kontext.set_lora([lora_file(0)])
        assert statuses(edit_folder(kontext, asking(photos), out)) == [KEPT] * 3, "the same file, set"
        kontext.set_lora([(lora_file(0), 0.5)])
        assert statuses(edit_folder(kontext, asking(photos), out)) == [MADE] * 3
