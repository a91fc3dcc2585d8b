"""Keys and certificates that sign: which are taken, and what is wrong with the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from certificates import Files, key_pem, make_authority, make_chain, make_key, write_files
from cryptography.x509.oid import ExtendedKeyUsageOID

from kontext_trt.engine.errors import ProvenanceError
from kontext_trt.runtime.outputs.provenance import PictureSigner
from kontext_trt.runtime.outputs.signing_key import read_signing_key


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return write_files(tmp_path)


@pytest.mark.parametrize(
    ("kind", "algorithm"), [("p256", "es256"), ("p384", "es384"), ("ed25519", "ed25519"), ("rsa", "ps256")]
)
def test_the_algorithm_is_the_keys(tmp_path: Path, kind: str, algorithm: str) -> None:
    files = write_files(tmp_path, kind=kind)
    key = read_signing_key(files.chain, files.key)
    assert (key.algorithm, key.signer) == (algorithm, "test signer")
    assert "PRIVATE" not in repr(key)
    assert PictureSigner(key).name == "test signer"


def test_a_key_in_its_older_form_is_taken(tmp_path: Path, files: Files) -> None:
    authority, key = make_authority(), make_key()
    files.chain.write_bytes(make_chain(authority, key))
    files.key.write_bytes(key_pem(key, traditional=True))
    assert b"BEGIN PRIVATE KEY" in read_signing_key(files.chain, files.key).secret


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_may_read_is_refused(files: Files, mode: int) -> None:
    files.key.chmod(mode)
    with pytest.raises(
        ProvenanceError, match=rf"is open to others \(mode {mode:o}\), who could sign with it: chmod 600"
    ):
        read_signing_key(files.chain, files.key)


def test_other_files_are_refused_in_words(files: Files, tmp_path: Path) -> None:
    authority, key, other = make_authority(), make_key(), make_key()
    for chain, secret, message in (
        (b"junk", key_pem(key), "holds no certificates in PEM"),
        (make_chain(authority, key), b"junk", "is no private key in PEM"),
        (make_chain(authority, key), key_pem(key, password=b"x"), "is encrypted; decrypt it"),
        (make_chain(authority, key), key_pem(other), "the first certificate of .* is not of the key in"),
        (authority.pem + make_chain(authority, key), key_pem(key), "the signer's own stands first"),
        (make_chain(authority, key, start=-9, days=2), key_pem(key), "is valid from .*, and must not sign now"),
        (make_chain(authority, key, start=2), key_pem(key), "is valid from .*, and must not sign now"),
    ):
        files.chain.write_bytes(chain)
        files.key.write_bytes(secret)
        with pytest.raises(ProvenanceError, match=message):
            read_signing_key(files.chain, files.key)
    odd = make_key("k256")
    files.chain.write_bytes(make_chain(authority, odd))
    files.key.write_bytes(key_pem(odd))
    with pytest.raises(ProvenanceError, match="is a key that C2PA does not know"):
        read_signing_key(files.chain, files.key)
    for chain, secret in ((tmp_path / "no", files.key), (files.chain, tmp_path / "no")):
        with pytest.raises(ProvenanceError, match="no cannot be read: No such file"):
            read_signing_key(chain, secret)


def test_a_certificate_for_something_else_is_refused_before_anything_is_made(files: Files) -> None:
    authority, key = make_authority(), make_key()
    files.chain.write_bytes(make_chain(authority, key, purpose=ExtendedKeyUsageOID.SERVER_AUTH))
    files.key.write_bytes(key_pem(key))
    with pytest.raises(ProvenanceError, match=r"the picture could not be signed: .*certificate"):
        PictureSigner.open(files.chain, files.key)
