"""Signs plans' manifests, which hold the hashes of all of a plan's bytes, and knows this user's own signatures.

The file beside a plan has a line per key that signed it: the key's name, and the MAC in hex.
"""

from __future__ import annotations

import logging

from ..bundle.folder import Folder
from ..errors import OptionError
from ..system.signing import Key, find_key, key_path, own_key

logger = logging.getLogger(__name__)

SUFFIX = ".sig"
MAX_SIGNATURES = 64
_LINE_BYTES = 128
_PURPOSE = "plan"


def is_signed(folder: Folder, key: str, manifest: bytes) -> bool:
    """Return whether this user's key signed the plan with a key's manifest, whose bytes are given.

    A key that cannot be used has signed nothing; why not is logged.
    """
    try:
        own = find_key()
    except OptionError as error:
        logger.warning("no plan is known as yours: %s", error)
        return False
    if own is None:
        return False
    return any(name == own.name and own.verifies(_PURPOSE, manifest, mac) for name, mac in _read(folder, key))


def sign(folder: Folder, key: str, manifest: bytes) -> None:
    """Add this user's signature, for a manifest that is in place or will be; those of others stay.

    Raises:
        OptionError: The user's key cannot be read or made.
    """
    own: Key = own_key()
    others = [(name, mac) for name, mac in _read(folder, key) if name != own.name]
    lines = [(own.name, own.mac(_PURPOSE, manifest)), *others[: MAX_SIGNATURES - 1]]
    with folder.atomic_file(f"{key}{SUFFIX}") as file:
        file.write("".join(f"{name} {mac.hex()}\n" for name, mac in lines).encode())


def key_words() -> str:
    """Return the key's file for a message, after a space; "" if there is no place for one."""
    try:
        return f" {key_path()}"
    except OptionError:
        return ""


def _read(folder: Folder, key: str) -> list[tuple[str, bytes]]:
    try:
        text = folder.read(f"{key}{SUFFIX}", MAX_SIGNATURES * _LINE_BYTES).decode("ascii")
        return [(name, bytes.fromhex(mac)) for name, mac in (line.split(" ") for line in text.splitlines())]
    except (FileNotFoundError, ValueError):  # what cannot be read, signs nothing
        return []
