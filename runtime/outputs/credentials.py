"""Reads the content credentials (C2PA) of a picture, and says what they are worth."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from PIL import Image

from ...engine.errors import ImageError, MissingDependencyError, ProvenanceError

LABEL = "org.kontext-trt.generation"
"""The label of the assertion that says which bundle made a picture."""
UNTRUSTED = "signingCredential.untrusted"
"""The code of the one problem that does not make credentials invalid: nobody vouches for who signed."""
OFFLINE: Mapping[str, Any] = {"remote_manifest_fetch": False, "ocsp_fetch": False}
"""The settings that keep the library from asking other machines."""
_PROBLEM_LENGTH = 200
_MARKS: Mapping[str, tuple[bytes, int, bytes]] = {
    "image/png": (b"\x89PNG\r\n\x1a\n", 12, b"IHDR"),
    "image/jpeg": (b"\xff\xd8", 2, b"\xff"),
    "image/webp": (b"RIFF", 8, b"WEBP"),
}
"""The bytes that files of a type begin with, and a place with further ones."""


class CredentialState(str, Enum):
    """Says what a picture's credentials are worth.

    Attributes:
        TRUSTED: They hold, and one of the trusted authorities vouches for who signed.
        UNKNOWN_SIGNER: They hold, and nobody vouches for who signed: anybody can sign like that.
        TAMPERED: They do not hold: the picture or they themselves were altered or damaged since, or their certificate
            must not sign.
        NONE: There are none.
    """

    TRUSTED = "trusted"
    UNKNOWN_SIGNER = "unknown signer"
    TAMPERED = "tampered"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Holds what a picture's credentials say. But for the state, these are the claims of who signed.

    Attributes:
        state: What they are worth.
        problems: The codes of C2PA, or words of the library, for what does not hold.
        signer: The common name of the certificate.
        issuer: The organization of the certificate.
        sources: The IPTC digital source types of the actions, as URIs, in their order.
        ingredients: The relationships of the pictures that it was made from, parentOf or componentOf, in their order.
        generation: What this project's own assertion says; empty without one.
    """

    state: CredentialState
    problems: tuple[str, ...] = ()
    signer: str = ""
    issuer: str = ""
    sources: tuple[str, ...] = ()
    ingredients: tuple[str, ...] = ()
    generation: Mapping[str, Any] = field(default_factory=dict)


def import_c2pa() -> Any:
    """Import the library of C2PA, or raise MissingDependencyError with the command that installs it."""
    try:
        import c2pa
    except ImportError as error:
        raise MissingDependencyError(
            "content credentials need c2pa-python, which is not installed: pip install 'kontext-trt[c2pa]'"
        ) from error
    return c2pa


def read_credentials(data: bytes, *, trust: bytes | None = None) -> Credentials:
    """Read a picture's credentials, and check them against its bytes. Nothing is fetched.

    Args:
        data: The picture's file.
        trust: Certificates in PEM whose owners may vouch for who signs; None for nobody.

    Raises:
        ImageError: This is no picture.
        ProvenanceError: Its format holds no credentials, or `trust` holds no certificate.
        MissingDependencyError: The library is not installed.
    """
    c2pa = import_c2pa()
    media_type = media_type_of(data)
    settings: dict[str, Any] = {"verify": dict(OFFLINE)}
    if trust is not None:
        settings["trust"] = {"user_anchors": _anchors(trust)}
    try:
        with (
            c2pa.Context.from_dict(settings) as context,
            c2pa.Reader(media_type, io.BytesIO(data), context=context) as reader,
        ):
            store = json.loads(reader.json())
    except c2pa.C2paError.ManifestNotFound:
        return Credentials(state=CredentialState.NONE)
    except c2pa.C2paError.NotSupported as error:
        raise ProvenanceError(f"a picture of type {media_type} holds no credentials: {error}") from error
    except c2pa.C2paError as error:  # what is there cannot be read
        return Credentials(state=CredentialState.TAMPERED, problems=(str(error)[:_PROBLEM_LENGTH],))
    return _credentials(store)


def media_type_of(data: bytes) -> str:
    """Return the media type of a picture's file, by its bytes. Raises ImageError for what is no picture.

    Pillow is asked about other formats than those that are signed: it does not know a PNG with a damaged chunk for one.
    """
    for media_type, (start, place, mark) in _MARKS.items():
        if data.startswith(start) and data[place : place + len(mark)] == mark:
            return media_type
    try:
        with Image.open(io.BytesIO(data)) as image:
            return Image.MIME[image.format or ""]
    except Exception as error:  # each format raises what it likes
        raise ImageError(f"this is no picture in a format that Pillow reads: {error}") from error


def _credentials(store: Mapping[str, Any]) -> Credentials:
    active = store.get("manifests", {}).get(store.get("active_manifest"), {})
    problems = tuple(str(one.get("code")) for one in store.get("validation_status") or ())
    signed = active.get("signature_info") or {}
    assertions = active.get("assertions") or ()
    actions = [
        action
        for assertion in assertions
        if str(assertion.get("label")).startswith("c2pa.actions")
        for action in assertion.get("data", {}).get("actions", ())
    ]
    return Credentials(
        state=_state(store.get("validation_state"), problems),
        problems=problems,
        signer=str(signed.get("common_name") or ""),
        issuer=str(signed.get("issuer") or ""),
        sources=tuple(action["digitalSourceType"] for action in actions if "digitalSourceType" in action),
        ingredients=tuple(str(one.get("relationship")) for one in active.get("ingredients") or ()),
        generation=next((one["data"] for one in assertions if one.get("label") == LABEL), {}),
    )


def _state(validation: object, problems: tuple[str, ...]) -> CredentialState:
    """Return what the library's answer means; what is not known to be good is not."""
    if validation == "Trusted" and not problems:
        return CredentialState.TRUSTED
    if validation == "Valid" and problems == (UNTRUSTED,):
        return CredentialState.UNKNOWN_SIGNER
    return CredentialState.TAMPERED


def _anchors(trust: bytes) -> str:
    from cryptography import x509

    try:
        x509.load_pem_x509_certificates(trust)
    except ValueError as error:
        raise ProvenanceError(f"who is trusted is a file of certificates in PEM, and this is none: {error}") from error
    return trust.decode("ascii", "ignore")
