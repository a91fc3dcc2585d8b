"""Masks, several references and chains of edits from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from kontext_trt.cli.app import app
from kontext_trt.engine.errors import KontextError


@pytest.fixture
def image_path(tmp_path: Path, picture: Any) -> Path:
    path = tmp_path / "in.png"
    picture(128, 128).save(path)
    return path


def edit(bundle: Path, image: Path, *arguments: object, steps: int | None = 1) -> str:
    """What `edit` prints, on both streams; its own errors are raised."""
    words = ["edit", str(bundle), "-i", str(image), "-s", "0", *map(str, arguments)]
    if "--steps" not in words and steps is not None:
        words += ["--steps", str(steps)]
    done = CliRunner().invoke(app, words)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def request_in(path: Path) -> dict[str, Any]:
    with Image.open(path) as picture:
        return json.loads(picture.info["kontext-trt"])


def changed(one: Path, other: Path) -> np.ndarray:
    with Image.open(one) as first, Image.open(other) as second:
        return (np.asarray(first) != np.asarray(second)).any(axis=2)


def test_boxes_and_mask_files_say_what_is_edited(bundle_path: Path, image_path: Path, tmp_path: Path) -> None:
    boxed, masked, mask = (tmp_path / name for name in ("boxed.png", "masked.png", "mask.png"))
    said = edit(bundle_path, image_path, "-p", "x", "--box", "0,0,64,32", "--box", "96,96,128,128", "-o", boxed)
    assert "mask 18.8 % of 128x128" in said
    marked = np.zeros((128, 128), bool)
    marked[:32, :64] = marked[96:, 96:] = True
    Image.fromarray(marked).save(mask)
    edit(bundle_path, image_path, "-p", "x", "--mask", mask, "-o", masked)
    assert not changed(boxed, masked).any()
    assert not changed(image_path, boxed)[~marked].any()
    assert changed(image_path, boxed)[marked].mean() > 0.5


def test_a_crop_is_edited_at_its_own_resolution(bundle_path: Path, tmp_path: Path, picture: Any) -> None:
    image, out = tmp_path / "large.png", tmp_path / "out.png"
    picture(400, 300).save(image)
    options = ("--box", "200,200,240,230", "--crop", "mask", "--margin", "8", "--feather", "0", "--strength", "0.5")
    said = edit(bundle_path, image, "-p", "x", *options, "--steps", 2, "-o", out)
    assert "mask 1.0 % of 400x300, in a crop of 144x112 at 148,159, feather 0" in said
    assert "out.png  400x300  seed 0" in said
    assert request_in(out)["strength"] == 0.5
    assert not changed(image, out)[:200].any()


def test_several_references(bundle_path: Path, image_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    said = edit(bundle_path, image_path, "-i", image_path, "--references", "index", "-p", "x", "-o", out)
    assert "64 of the picture + 64 of a reference + 64 of a reference + 512 of text = 704 tokens" in said
    assert request_in(out)["references"] == "index"


def test_one_edit_after_another(bundle_path: Path, image_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    said = edit(bundle_path, image_path, "-p", "make it blue", "--then", "remove the tree", "--then", "y", "-o", out)
    assert "3 (of 2) 'y', seed 0, 128x128" in said
    assert "out.png  128x128  3 turns" in said
    found = request_in(out)
    assert [one["prompt"] for one in found["chain"]] == ["make it blue", "remove the tree"]
    assert found["reference"] == "128x128, latents of an earlier result"
    printed = edit(bundle_path, image_path, "-p", "x", "--then", "y", "-o", out, "--json")
    document = json.loads(printed[printed.index("{") :])
    assert [turn["prompt"] for turn in document["turns"]] == ["x", "y"]


def test_solver_and_sigmas_reach_every_turn(bundle_path: Path, image_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    options = ("-p", "x", "--then", "y", "--solver", "ab2", "--sigmas", "1,0.5,0", "--steps", 2, "-o", out)
    printed = edit(bundle_path, image_path, *options, "--json")
    found = request_in(out)
    for turn in (found, *found["chain"], *json.loads(printed[printed.index("{") :])["turns"]):
        assert (turn["solver"], turn["sigmas"], turn["steps"]) == ("ab2", [1, 0.5], 2)


def test_what_gives_way_is_said_and_inputs_do_not(
    bundle_path: Path, image_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = image_path.read_bytes()
    for options in (("-o", "in.png"), ("-o", "in.png", "--then", "y"), ("-o", "o.png", "-i", "o-2.png", "-p", "y")):
        (tmp_path / "o-2.png").write_bytes(before)
        with monkeypatch.context() as patch, pytest.raises(KontextError, match="one of the pictures that it is made"):
            patch.setattr("kontext_trt.cli.edit.opened", None)  # nothing is loaded before
            edit(bundle_path, image_path, "-p", "x", *options)
    assert image_path.read_bytes() == before
    said = edit(bundle_path, image_path, "-p", "x", "-o", "a/b/out.png")
    assert "made folder a/b\n" in said
    assert "replaced" not in said
    for options in ((), ("--then", "y")):
        said = edit(bundle_path, image_path, "-p", "x", "-o", "a/b/out.png", *options)
        assert "replaced a/b/out.png\n" in said
        assert "made folder" not in said
    assert "replaced in.png\n" in edit(bundle_path, image_path, "-p", "x", "-o", "in.png", "--overwrite")
    assert image_path.read_bytes() != before


def test_a_chosen_schedule_says_which_steps(
    bundle_path: Path, image_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, chosen, out = tmp_path / "requests", tmp_path / "schedule.json", tmp_path / "out.png"
    folder.mkdir()
    image_path.rename(folder / "in.png")
    (folder / "instructions.txt").write_text("make it blue\n")
    options = ("--requests", folder, "--share", "0.5", "--steps", 4, "--reference-steps", 6)
    done = CliRunner().invoke(app, ["schedule", str(bundle_path), str(chosen), *map(str, options)])
    assert done.exit_code == 0, done.output
    assert " steps of " in done.output
    edit(bundle_path, folder / "in.png", "-p", "x", "--schedule", chosen, "-o", out, steps=None)
    written = json.loads(chosen.read_text())
    assert request_in(out)["sigmas"] == written["sigmas"]
    assert not caplog.messages
    chosen.write_text(json.dumps({**written, "bundle": "0" * 64}))
    edit(bundle_path, folder / "in.png", "-p", "x", "--schedule", chosen, "-o", out, steps=None)
    assert "was chosen for another bundle; what it loses with this one is not known" in caplog.text
    with pytest.raises(KontextError, match="--schedule says what --steps, --solver would; leave one out"):
        edit(bundle_path, folder / "in.png", "-p", "x", "--schedule", chosen, "--solver", "ab2", "-o", out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-p", "x", "--mask", "m.png", "--box", "0,0,8,8"), "give a mask as --mask or as --box, not both"),
        (("-p", "x", "--box", "0,0,8"), "--box is LEFT,TOP,RIGHT,BOTTOM in pixels, such as"),
        (("-p", "x", "--crop", "mask", "--margin", "3"), "--crop and --margin say how a mask is used; give one with"),
        (("-p", "x", "-p", "y", "--then", "z"), "--then goes on with one picture, so it takes one --prompt and one"),
        (("-p", "x", "--strength", "0"), "strength must be a number above 0, up to 1, not 0"),
        (("-p", "x", "--strength", "0.3"), "a strength of 0.3 leaves less than one of 1 steps; give at least 1"),
        (("-p", "x", "--step-mask", "1;0"), "step_mask is of 1 and 0 with commas between, such as 1,0,1,0"),
        (("-p", "x", "--sigmas", "1 0.5"), "sigmas are numbers with commas between"),
        (("-p", "x", "--sigmas", "1,0.5"), "2 sigmas make 2 steps, not 1; leave the steps out"),
        (("-p", "x", "--sigmas", "0.5", "--size", "64x64"), "sigmas that begin there, the picture has its reference's"),
        (("-p", "x", "--box", "0,0,8,8", "--size", "64x64"), "has its reference's size 128x128, not 64x64; leave the"),
    ],
)
def test_what_does_not_go_together(
    bundle_path: Path, image_path: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    with pytest.raises(KontextError, match=words):
        edit(bundle_path, image_path, *arguments, "-o", tmp_path / "out.png")


def test_loras_are_swapped_in_for_every_turn(
    branched_bundle: Any, lora_file: Any, image_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.png"
    bundle, file = branched_bundle().path, lora_file(1)
    edit(bundle, image_path, "-p", "x", "--lora", f"{file}:0.5", "--lora", lora_file(2), "--then", "y", "-o", out)
    request = request_in(out)
    expected = [(file.name, 0.5), (lora_file(2).name, 1.0)]
    for turn in (request, *request["chain"]):
        assert [(one["name"], one["scale"]) for one in turn["loras"]] == expected
    shown = CliRunner().invoke(app, ["inspect", str(bundle)]).output
    assert "branches of rank 4 in 46 layers for LoRAs" in " ".join(shown.split())


def test_a_bundle_without_branches_refuses_them(bundle_path: Path, lora_file: Any, image_path: Path) -> None:
    with pytest.raises(KontextError, match="exported without --lora-rank"):
        edit(bundle_path, image_path, "-p", "x", "--lora", lora_file(1))


def test_an_empty_name_is_not_the_folder_one_is_in(
    bundle_path: Path, image_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a shell variable that is not set: the folder's pictures would be edited, all of them."""
    out = tmp_path / "out"
    monkeypatch.chdir(image_path.parent)
    done = CliRunner().invoke(app, ["edit", str(bundle_path), "-i", "", "-p", "make it blue", "-o", str(out)])
    assert done.exit_code == 2
    assert "the name is empty" in done.output
    assert not out.exists()
