"""Signs what this user's programs made and will execute again: plans, and caches of kernels.

The key is a secret of the user's, made once, outside all bundles. HMAC-SHA256, RFC 2104, from the standard library.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import OptionError

logger = logging.getLogger(__name__)

VARIABLE = "KONTEXT_TRT_KEY"
"""The environment variable that names the key's file; without it the key lies in the user's configuration folder."""
KEY_BYTES = 32
MAC_BYTES = hashlib.sha256().digest_size
_FILE_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """Holds a key that has been read.

    Attributes:
        path: The file that it lies in.
        secret: Its bytes; whoever has them can sign.
    """

    path: Path
    secret: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """The name of the key in signatures: sixteen hex digits, which say nothing of the secret."""
        return self.mac("name", b"").hex()[:16]

    def mac(self, purpose: str, data: bytes) -> bytes:
        """Return the MAC of data; one made for another purpose never fits."""
        return hmac.digest(self.secret, purpose.encode() + b"\0" + data, "sha256")

    def verifies(self, purpose: str, data: bytes, mac: bytes) -> bool:
        return hmac.compare_digest(self.mac(purpose, data), mac)


def key_path() -> Path:
    """Return where this user's key lies, or would.

    Raises:
        OptionError: The user has no home folder, and the variable is not set.
    """
    if named := os.environ.get(VARIABLE):
        return Path(named)
    if configuration := os.environ.get("XDG_CONFIG_HOME"):
        return Path(configuration) / "kontext-trt" / "plans.key"
    try:
        return Path.home() / ".config" / "kontext-trt" / "plans.key"
    except RuntimeError as error:
        raise OptionError(f"no place for the key that signs plans: {error}; name a file in {VARIABLE}") from error


def find_key() -> Key | None:
    """Return this user's key; None if there is none yet.

    Raises:
        OptionError: Its file is no key, or others can write it.
    """
    path = key_path()
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            text = file.read(_FILE_BYTES) if stat.S_ISREG(status.st_mode) else b""
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OptionError(f"the key {path} cannot be read: {error.strerror}; {VARIABLE} names another file") from error
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OptionError(f"the key {path} can be written by others, so it proves nothing; chmod 600 it")
    if status.st_uid not in (0, os.geteuid()):
        raise OptionError(f"the key {path} belongs to another user (uid {status.st_uid}), so it proves nothing")
    try:
        secret = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        secret = b""
    if len(secret) != KEY_BYTES:
        raise OptionError(f"{path} is no key: it must hold {2 * KEY_BYTES} hex digits; {VARIABLE} names another file")
    return Key(path=path, secret=secret)


def own_key() -> Key:
    """Return this user's key, which is made if there is none.

    Raises:
        OptionError: Its file is no key, others can write it, or it cannot be made.
    """
    found = find_key()
    if found is not None:
        return found
    path = key_path()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_name(f".{secrets.token_hex(8)}")
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(KEY_BYTES) + "\n")
            with suppress(FileExistsError):  # by another process meanwhile: that one's is the key
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OptionError(
            f"the key that signs plans cannot be made at {path}: {error.strerror}; name a file in {VARIABLE}"
        ) from error
    made = find_key()
    assert made is not None
    logger.info("plans of this user are signed with the key %s", path)
    return made
