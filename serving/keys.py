"""Reads the keys that clients may show from a file that nobody else reads."""

from __future__ import annotations

import ipaddress
import stat
from pathlib import Path

from ..engine.errors import OptionError

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def read_keys(path: Path) -> tuple[str, ...]:
    """Read keys, one a line; empty lines and those that begin with # are left out.

    Raises:
        OptionError: The file cannot be read, others may read or write it, or there is no key in it.
    """
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & _OTHERS:
                raise OptionError(f"{path} is open to others (mode {mode:o}): chmod 600 {path}")
            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path} cannot be read as a file of keys: {error}") from error
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise OptionError(f"{path} holds no key; write one per line")
    return keys


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, keys: tuple[str, ...], *, open_to_all: bool) -> None:
    """Raise OptionError where others could reach a server that asks for no key, unless that is wanted."""
    if not keys and not open_to_all and not is_loopback(host):
        raise OptionError(
            f"on {host} everybody who reaches this machine could use it: give --api-key-file FILE, or --no-key if that "
            "is wanted"
        )
