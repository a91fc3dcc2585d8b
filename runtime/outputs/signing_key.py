"""Reads the certificates and the private key that sign pictures."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ...engine.errors import ProvenanceError
from .credentials import import_c2pa

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """Holds what it takes to sign.

    Attributes:
        algorithm: The library's name of the algorithm, such as "es256".
        certificates: The chain in PEM, the signer's own first.
        secret: The private key as unencrypted PKCS#8 in PEM.
        signer: The common name of the certificate.
    """

    algorithm: str
    certificates: bytes = field(repr=False)
    secret: bytes = field(repr=False)
    signer: str


def read_signing_key(certificates: Path, key: Path) -> SigningKey:
    """Read a chain of certificates and their key from files.

    Args:
        certificates: The chain in PEM, the signer's own first.
        key: The private key in PEM, not encrypted: of P-256, P-384, P-521, Ed25519, or RSA (PS256). Only its owner may
            read the file.

    Raises:
        ProvenanceError: A file cannot be read or is none, others may read the key, or the two do not fit each other.
        MissingDependencyError: The library is not installed.
    """
    import_c2pa()
    chain, secret = _bytes(certificates), _secret(key)
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    try:
        own = x509.load_pem_x509_certificates(chain)[0]
    except ValueError as error:
        raise ProvenanceError(f"{certificates} holds no certificates in PEM: {error}") from error
    try:
        private: Any = serialization.load_pem_private_key(secret, password=None)
    except TypeError as error:
        raise ProvenanceError(
            f"{key} is encrypted; decrypt it into a file that nobody else reads: openssl pkcs8 -in {key} -out NEW"
        ) from error
    except Exception as error:  # also an algorithm that is not known
        raise ProvenanceError(f"{key} is no private key in PEM: {error}") from error
    if own.public_key() != private.public_key():
        raise ProvenanceError(
            f"the first certificate of {certificates} is not of the key in {key}; the signer's own stands first"
        )
    now = datetime.now(timezone.utc)
    if not own.not_valid_before_utc <= now <= own.not_valid_after_utc:
        raise ProvenanceError(
            f"the certificate in {certificates} is valid from {own.not_valid_before_utc:%Y-%m-%d} to "
            f"{own.not_valid_after_utc:%Y-%m-%d}, and must not sign now"
        )
    names = own.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return SigningKey(
        algorithm=_algorithm(key, private),
        certificates=chain,
        secret=private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        signer=str(names[0].value) if names else "",
    )


def _algorithm(path: Path, private: Any) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in _CURVES:
        return _CURVES[private.curve.name]
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(private, rsa.RSAPrivateKey):
        return "ps256"
    raise ProvenanceError(f"{path} is a key that C2PA does not know; use P-256, P-384, P-521, Ed25519 or RSA")


def _secret(path: Path) -> bytes:
    """Read a key. Raises ProvenanceError if others than its owner may do so, too."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise ProvenanceError(f"{path} cannot be read: {error.strerror or error}") from error
    if mode & _OTHERS:
        raise ProvenanceError(f"{path} is open to others (mode {mode:o}), who could sign with it: chmod 600 {path}")
    return _bytes(path)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ProvenanceError(f"{path} cannot be read: {error.strerror or error}") from error
