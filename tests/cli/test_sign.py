"""Signing and verifying files from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from certificates import Files, write_files
from command_line import run
from PIL import Image
from typer.testing import CliRunner

from kontext_trt import Kontext
from kontext_trt.cli.app import app
from kontext_trt.engine.errors import ImageError, KontextError, ProvenanceError, RequestError


def invoke(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments)])
    if isinstance(done.exception, KontextError):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_files(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def given(tmp_path: Path) -> Path:
    path = tmp_path / "in.png"
    Image.effect_noise((64, 64), 60).convert("RGB").save(path)
    return path


@pytest.fixture
def edited(kontext: Kontext, given: Path, tmp_path: Path) -> Path:
    return kontext.edit(given, "make it blue", steps=1, seed=0).save(tmp_path / "edited.jpg")[0]


def test_an_edit_is_signed_in_its_place_and_verified(
    edited: Path, given: Path, files: Files, tmp_path: Path, bundle
) -> None:
    keys = ("--cert", files.chain, "--key", files.key)
    assert "no content credentials" in invoke("verify", edited, code=1)
    with pytest.raises(
        ProvenanceError, match=r"says that it is an edit; name the picture that was edited with --parent"
    ):
        invoke("sign", edited, *keys)
    with pytest.raises(RequestError, match="is one of the pictures that it is made from"):
        invoke("sign", edited, *keys, "--parent", given, "--out", given)
    said = invoke("sign", edited, *keys, "--parent", given).splitlines()
    assert sorted(said) == [f"{edited}  signed by test signer", f"replaced {edited}"]
    with pytest.raises(ProvenanceError, match="has credentials, which a second signature would replace"):
        invoke("sign", edited, *keys, "--parent", given)
    said = invoke("verify", edited)
    assert "valid, signed by test signer (Tests of kontext-trt), whom nobody vouches for here" in said
    assert "compositeWithTrainedAlgorithmicMedia" in said
    assert "made from parentOf" in said
    assert f"bundle {bundle.fingerprint}" in said
    trusted = json.loads(invoke("verify", edited, "--trust", files.authority, "--json"))
    assert (trusted["state"], trusted["ingredients"]) == ("trusted", ["parentOf"])
    other = write_files(tmp_path).authority
    assert "whom nobody vouches for" in invoke("verify", edited, "--trust", other, code=1)
    edited.write_bytes(edited.read_bytes() + b"x")
    assert "tampered with or damaged" in invoke("verify", edited, code=1)


@pytest.mark.check
def test_a_picture_from_text_is_signed_elsewhere(kontext: Kontext, files: Files, given: Path, tmp_path: Path) -> None:
    (made,) = kontext.generate("a cat", steps=1, seed=0).save(tmp_path / "made.webp")
    before, keys = made.read_bytes(), ("--cert", files.chain, "--key", files.key)
    with pytest.raises(ProvenanceError, match="says that it was made from text alone, so it has no --parent"):
        invoke("sign", made, *keys, "--parent", given)
    said = invoke("sign", made, *keys, "--out", tmp_path / "new" / "signed.webp")
    assert f"made folder {tmp_path / 'new'}" in said
    assert made.read_bytes() == before
    assert "made from nothing else" in invoke("verify", tmp_path / "new" / "signed.webp")


def test_what_made_a_picture_may_be_unknown(
    given: Path, files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given.rename(plain := tmp_path / "plain.png")
    said = invoke("sign", plain, "--cert", files.chain, "--key", files.key, "--json")
    assert json.loads(said[said.index("{") :]) == {"path": str(plain), "signer": "test signer"}
    assert "does not say what made it; the signature will say that a model did" in caplog.text
    assert "bundle unknown" in invoke("verify", plain)


def test_files_that_are_no_pictures_are_refused(files: Files, tmp_path: Path) -> None:
    keys = ("--cert", files.chain, "--key", files.key)
    (tmp_path / "x.png").write_bytes(b"junk")
    for command in (("sign", tmp_path / "x.png", *keys), ("verify", tmp_path / "x.png")):
        with pytest.raises(ImageError, match="this is no picture"):
            invoke(*command)
    for command in (("sign", tmp_path / "no", *keys), ("verify", tmp_path / "no")):
        with pytest.raises(ImageError, match="no cannot be read: No such file"):
            invoke(*command)


def test_an_edit_is_signed_as_it_is_made(bundle_path: Path, given: Path, files: Files, tmp_path: Path) -> None:
    keys = ("--c2pa-cert", files.chain, "--c2pa-key", files.key)
    asked = ("edit", bundle_path, "-i", given, "-p", "make it blue", "--steps", "1", "--seed", "0")
    run(*asked, *keys, "--out", tmp_path / "one.png", "--then", "remove the tree")
    found = json.loads(invoke("verify", tmp_path / "one.png", "--json"))
    assert (found["state"], len(found["sources"]), found["ingredients"]) == ("unknown signer", 2, ["parentOf"])
    for options, message in (
        (keys[:2], "a signature needs --c2pa-cert and --c2pa-key, both"),
        ((*keys, "--out", tmp_path / "x.gif"), "pictures in GIF are not signed"),
    ):
        with pytest.raises(KontextError, match=message):
            invoke(*asked, *options)


@pytest.mark.check
def test_a_session_signs_what_it_saves(bundle_path: Path, given: Path, files: Files, tmp_path: Path) -> None:
    keys = ("--c2pa-cert", str(files.chain), "--c2pa-key", str(files.key))
    command = ["session", str(bundle_path), "-i", str(given), "--steps", "1", "--seed", "0", *keys]
    lines = f"make it blue\n/save {tmp_path / 'a.png'}\n/save {tmp_path / 'a.gif'}\n"
    done = CliRunner().invoke(app, command, input=lines)
    assert done.exit_code == 0, done.output
    assert "pictures in GIF are not signed" in done.output
    assert "parentOf" in invoke("verify", tmp_path / "a.png")
