"""Signed pictures: what they say, that they hold in another process, and what happens where they cannot be made."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certificates import Files, write_files
from PIL import Image

from kontext_trt import Kontext, Latents, PictureSigner
from kontext_trt.engine.errors import ImageError, ProvenanceError
from kontext_trt.runtime.outputs import provenance
from kontext_trt.runtime.outputs.credentials import Credentials, CredentialState, read_credentials
from kontext_trt.runtime.outputs.picture_file import METADATA_KEY
from kontext_trt.runtime.outputs.provenance import EDITED, GENERATED, Origin

READER = """
import json, sys
import c2pa
settings = {"trust": {"user_anchors": open(sys.argv[1]).read()}, "verify": {"remote_manifest_fetch": False}}
found = []
for path in sys.argv[2:]:
    with c2pa.Context.from_dict(settings) as context, open(path, "rb") as file:
        with c2pa.Reader(None, file, context=context) as reader:
            store = json.loads(reader.json())
            active = store["manifests"][store["active_manifest"]]
            found.append([store["validation_state"], active, len(store["manifests"])])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_files(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def signer(files: Files) -> PictureSigner:
    return PictureSigner.open(files.chain, files.key)


@pytest.fixture(scope="module")
def made(kontext: Kontext) -> Any:
    """A picture from text, two edits of one picture beside another, and their inputs."""
    first, second = (Image.effect_noise((64, 64), spread).convert("RGB") for spread in (40, 90))
    edited = kontext.edit([first, second], ["one", "two"], steps=1, seed=3)
    return kontext.generate("a cat", steps=1, seed=1, size=(64, 64)), edited, [first, second]


def in_a_process_of_its_own(files: Files, *paths: Path) -> list[tuple[str, dict[str, Any], int]]:
    """What the library's own reader says of each file."""
    command = [sys.executable, "-c", READER, str(files.authority), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def pixels(path: Path) -> Any:
    with Image.open(path) as image:
        return np.array(image)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_signed_pictures_hold_in_a_fresh_process(
    made, files: Files, signer: PictureSigner, tmp_path: Path, suffix: str
) -> None:
    generated, edited, inputs = made
    (plain,) = generated.save(tmp_path / f"plain.{suffix}")
    (one,) = generated.save(tmp_path / f"one.{suffix}", signer=signer)
    plains = edited.save(tmp_path / f"unsigned.{suffix}")
    two, three = edited.save(tmp_path / f"edited.{suffix}", signer=signer, inputs=inputs)
    for unsigned, signed in ((plain, one), (plains[0], two), (plains[1], three)):
        assert np.array_equal(pixels(unsigned), pixels(signed))
    found = in_a_process_of_its_own(files, one, two, three)
    assert [state for state, _, _ in found] == ["Trusted"] * 3
    kinds = [
        (GENERATED, ["c2pa.created"], []),
        *[(EDITED, ["c2pa.opened", "c2pa.edited"], ["parentOf", "componentOf"])] * 2,
    ]
    for (_, active, _), (source, actions, relationships) in zip(found, kinds, strict=True):
        said = {one["label"]: one["data"] for one in active["assertions"]}
        assert [action["action"] for action in said["c2pa.actions.v2"]["actions"]] == actions
        assert said["c2pa.actions.v2"]["actions"][-1]["digitalSourceType"] == source
        assert [one["relationship"] for one in active.get("ingredients", ())] == relationships
        assert said["org.kontext-trt.generation"]["bundle"] == generated.bundle
        assert "thumbnail" not in json.dumps(active)
        assert "a cat" not in json.dumps(active), "the signature says no prompt; the text beside it does"
    assert one.stat().st_size - plain.stat().st_size < 8192


def test_the_request_stays_in_the_file(made, signer: PictureSigner, tmp_path: Path) -> None:
    generated, *_ = made
    (path,) = generated.save(tmp_path / "one.png", signer=signer)
    with Image.open(path) as image:
        assert json.loads(image.info[METADATA_KEY])["prompt"] == "a cat"
    for suffix in ("jpg", "webp"):
        (path,) = generated.save(tmp_path / f"one.{suffix}", signer=signer)
        with Image.open(path) as image:
            assert json.loads(image.getexif()[0x010E])["prompt"] == "a cat"


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_a_picture_that_was_altered_is_told(made, signer: PictureSigner, tmp_path: Path, suffix: str) -> None:
    generated, *_ = made
    (path,) = generated.save(tmp_path / f"one.{suffix}", signer=signer)
    data = path.read_bytes()
    unsigned = generated.save(tmp_path / f"plain.{suffix}")[0].read_bytes()
    start = next(at for at in range(len(unsigned) // 2, len(unsigned)) if unsigned[at : at + 16] in data)
    place = data.index(unsigned[start : start + 16])
    altered = [
        data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :],
        data + b"more",
        data.replace(b"kontext-trt", b"kontext-xxx"),
    ]
    for one in altered:
        assert read_credentials(one).state is CredentialState.TAMPERED
    with Image.open(path) as image:
        image.save(tmp_path / f"again.{suffix}")
    assert read_credentials((tmp_path / f"again.{suffix}").read_bytes()).state is CredentialState.NONE


def test_an_inputs_own_credentials_are_kept(made, files: Files, signer: PictureSigner, tmp_path: Path) -> None:
    generated, edited, inputs = made
    (first,) = generated.save(tmp_path / "first.png", signer=signer)
    paths = edited.save(tmp_path / "second.png", signer=signer, inputs=[first, inputs[1]])
    assert [manifests for _, _, manifests in in_a_process_of_its_own(files, *paths)] == [2, 2]


def test_inputs_of_every_kind_are_ingredients(made, signer: PictureSigner, tmp_path: Path) -> None:
    _, edited, (first, _) = made
    first.save(tmp_path / "in.bmp")
    latents = edited.as_reference(edited.outputs[0])
    (path, _) = edited.save(tmp_path / "x.png", signer=signer, inputs=[tmp_path / "in.bmp", np.asarray(first), latents])
    assert read_credentials(path.read_bytes()).ingredients == ("parentOf", "componentOf", "componentOf")
    bare = Latents(tokens=latents.tokens, size=latents.size)
    with pytest.raises(ProvenanceError, match="these latents came without their picture, which a signature names"):
        edited.save(tmp_path / "y.png", signer=signer, inputs=[bare])
    with pytest.raises(ImageError, match=r"no\.png cannot be read"):
        edited.save(tmp_path / "y.png", signer=signer, inputs=[tmp_path / "no.png"])
    with pytest.raises(ProvenanceError, match="an edit is signed with the pictures that it was made from"):
        edited.save(tmp_path / "y.png", signer=signer)
    with pytest.raises(ProvenanceError, match="was made from text alone, so it is signed without inputs"):
        made[0].save(tmp_path / "y.png", signer=signer, inputs=[first])
    assert not list(tmp_path.glob("y*"))


def test_a_session_is_a_chain_of_edits(kontext: Kontext, made, signer: PictureSigner, tmp_path: Path) -> None:
    *_, (first, _) = made
    given = tmp_path / "given.png"
    given.write_bytes(signer.sign(_png(first), Origin()))
    with kontext.session(given) as session:
        session.edit("one", steps=1, seed=0)
        session.edit("two", steps=1, seed=0)
        path = session.save_image(tmp_path / "a.png", signer=signer)
        kept = session.save_image(tmp_path / "b.png", signer=signer, inputs=given)
    for one in (path, kept):
        found = read_credentials(one.read_bytes())
        assert (found.sources, found.ingredients) == ((EDITED, EDITED), ("parentOf",))
    assert kept.stat().st_size > path.stat().st_size + 2000, "the given file's own credentials are in it"


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


@pytest.mark.parametrize("suffix", ["avif", "gif", "tif", "bmp"])
def test_formats_that_are_not_signed_are_refused_by_name(
    made, signer: PictureSigner, tmp_path: Path, suffix: str
) -> None:
    with pytest.raises(ProvenanceError, match=r"pictures in \w+ are not signed; use \.png, \.jpg or \.webp"):
        made[0].save(tmp_path / f"x.{suffix}", signer=signer)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ProvenanceError, match="pictures of type image/gif are not signed; use PNG, JPEG or WebP"):
        file = io.BytesIO()
        Image.new("RGB", (4, 4)).save(file, format="GIF")
        signer.sign(file.getvalue(), Origin())


def test_a_failed_signature_leaves_nothing_and_replaces_nothing(
    made, signer: PictureSigner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, edited, inputs = made
    (tmp_path / "x-1.png").write_bytes(b"before")
    answers = iter([Credentials(state=CredentialState.TAMPERED, problems=("assertion.dataHash.mismatch",))])
    real = provenance.read_credentials
    calls: list[int] = []

    def second_fails(data: bytes) -> Credentials:
        calls.append(len(data))
        return next(answers) if len(calls) == 2 else real(data)

    monkeypatch.setattr(provenance, "read_credentials", second_fails)
    with pytest.raises(ProvenanceError, match=r"what was signed does not hold \(assertion\.dataHash\.mismatch\)"):
        edited.save(tmp_path / "x.png", signer=signer, inputs=inputs)
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("x-1.png", b"before")]


def test_what_says_something_else_is_not_handed_out(
    made, signer: PictureSigner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt source type reads as valid."""
    monkeypatch.setattr(provenance, "_manifest", lambda media_type, _: {"format": media_type, "assertions": []})
    _, edited, inputs = made
    with pytest.raises(ProvenanceError, match=r"what was signed says \(\) of \('parentOf', 'componentOf'\), not"):
        edited.save(tmp_path / "x.png", signer=signer, inputs=inputs)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_picture_is_not_signed(signer: PictureSigner) -> None:
    whole = _png(Image.new("RGB", (64, 64)))
    with pytest.raises(ProvenanceError, match="the picture could not be signed"):
        signer.sign(whole[:40], Origin())
    with pytest.raises(ImageError, match="this is no picture"):
        signer.sign(b"junk", Origin())
