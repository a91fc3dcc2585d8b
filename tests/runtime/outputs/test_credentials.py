"""Credentials that are read: what they are worth, and of what they are not read."""

from __future__ import annotations

import builtins
import io
from pathlib import Path

import pytest
from certificates import make_authority, write_files
from PIL import Image

from kontext_trt.engine.errors import ImageError, MissingDependencyError, ProvenanceError
from kontext_trt.runtime.outputs.credentials import CredentialState, read_credentials
from kontext_trt.runtime.outputs.provenance import Origin, PictureSigner


def encoded(file_format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.effect_noise((48, 48), 80).convert("RGB").save(file, format=file_format)
    return file.getvalue()


def test_who_is_trusted_makes_the_difference(tmp_path: Path) -> None:
    files = write_files(tmp_path)
    signed = PictureSigner.open(files.chain, files.key).sign(encoded(), Origin(request={"bundle": "b" * 64}))
    unknown = read_credentials(signed)
    assert unknown.state is CredentialState.UNKNOWN_SIGNER
    assert unknown.problems == ("signingCredential.untrusted",)
    trusted = read_credentials(signed, trust=files.authority.read_bytes())
    assert (trusted.state, trusted.problems) == (CredentialState.TRUSTED, ())
    assert (trusted.signer, trusted.issuer) == ("test signer", "Tests of kontext-trt")
    assert trusted.generation["bundle"] == "b" * 64
    other = read_credentials(signed, trust=make_authority("another").pem)
    assert other.state is CredentialState.UNKNOWN_SIGNER


def test_a_picture_without_credentials_has_none() -> None:
    assert read_credentials(encoded()).state is CredentialState.NONE


def test_credentials_that_cannot_be_read_do_not_hold(tmp_path: Path) -> None:
    files = write_files(tmp_path)
    signed = bytearray(PictureSigner.open(files.chain, files.key).sign(encoded("JPEG"), Origin()))
    place = signed.index(b"c2pa.claim.v2") + 20
    signed[place : place + 200] = bytes(200)
    found = read_credentials(bytes(signed))
    assert found.state is CredentialState.TAMPERED
    assert found.problems


def test_what_holds_no_credentials_is_refused() -> None:
    with pytest.raises(ImageError, match="this is no picture"):
        read_credentials(b"junk")
    with pytest.raises(ProvenanceError, match="of type image/bmp holds no credentials"):
        read_credentials(encoded("BMP"))
    with pytest.raises(ProvenanceError, match="who is trusted is a file of certificates in PEM, and this is none"):
        read_credentials(encoded(), trust=b"junk")


def test_without_the_library_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name == "c2pa":
            raise ImportError(name)
        return real(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r"pip install 'kontext-trt\[c2pa\]'"):
        read_credentials(encoded())
