"""Certificates and keys for signing pictures, made for a test: nobody else trusts them."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PEM = serialization.Encoding.PEM


@dataclass(frozen=True, kw_only=True)
class Authority:
    """One that signs certificates."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(PEM)


def _name(common: str) -> x509.Name:
    attributes = ((NameOID.ORGANIZATION_NAME, "Tests of kontext-trt"), (NameOID.COMMON_NAME, common))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    others = dict.fromkeys(
        [
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ],
        False,
    )
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        **others,
    )


def _begun(subject: str, issuer: str, public: Any, start: float, days: float) -> x509.CertificateBuilder:
    begin = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=start)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def make_authority(name: str = "test authority") -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _begun(name, name, key.public_key(), -1, 30)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate=certificate, key=key)


def make_key(kind: str = "p256") -> Any:
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key({"p256": ec.SECP256R1, "p384": ec.SECP384R1, "k256": ec.SECP256K1}[kind]())


def key_pem(key: Any, *, password: bytes | None = None, traditional: bool = False) -> bytes:
    form = serialization.PrivateFormat.TraditionalOpenSSL if traditional else serialization.PrivateFormat.PKCS8
    secrecy = serialization.NoEncryption() if password is None else serialization.BestAvailableEncryption(password)
    return key.private_bytes(PEM, form, secrecy)


def make_chain(
    authority: Authority,
    key: Any,
    *,
    start: float = -1,
    days: float = 20,
    purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.EMAIL_PROTECTION,
) -> bytes:
    """A chain in PEM, the key's own certificate first."""
    own = (
        _begun("test signer", "test authority", key.public_key(), start, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return own.public_bytes(PEM) + authority.pem


@dataclass(frozen=True, kw_only=True)
class Files:
    """A chain, its key and its authority, in files."""

    chain: Path
    key: Path
    authority: Path


def write_files(folder: Path, *, kind: str = "p256") -> Files:
    """Make all three; nobody else may read the key."""
    authority, key = make_authority(), make_key(kind)
    files = Files(chain=folder / "chain.pem", key=folder / "key.pem", authority=folder / "authority.pem")
    files.chain.write_bytes(make_chain(authority, key))
    files.authority.write_bytes(authority.pem)
    files.key.write_bytes(key_pem(key))
    files.key.chmod(0o600)
    return files
