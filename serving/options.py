"""Defines how a server is set up: its limits, keys, names, and how long it keeps what."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..engine.errors import OptionError
from ..runtime.outputs.provenance import PictureSigner

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Holds what a client may ask for, and how many may.

    Attributes:
        waiting: The requests that wait while another one runs; the next is answered with 429.
        seconds: The seconds that a request may take from its arrival to its last picture.
        upload_seconds: The seconds that a body may take to arrive.
        body_bytes: The bytes of one request's body.
        total_bytes: The bytes of all bodies that are being read or used.
        pixels: The pixels of one input picture.
        output_pixels: The pixels of one output.
        steps: The steps of one picture.
        batch: The pictures of one request that are made at once, in one turn. Plans must cover it.

    Raises:
        OptionError: One of these is not above 0.
    """

    waiting: int = 64
    seconds: float = 600
    upload_seconds: float = 60
    body_bytes: int = 64 * MIB
    total_bytes: int = 512 * MIB
    pixels: int = 32_000_000
    output_pixels: int = 4 * MIB
    steps: int = 100
    batch: int = 1

    def __post_init__(self) -> None:
        _check_positive(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """Says how long and how much is kept in memory.

    Attributes:
        result_seconds: The seconds that a picture with an address can be fetched.
        result_bytes: The bytes of all pictures with an address; beyond it the oldest are let go.
        session_seconds: The seconds after its last use that a session ends.
        sessions: The number of sessions; a new one beyond it ends the one that was used longest ago.
        session_bytes: The bytes of pictures and latents that one session keeps.

    Raises:
        OptionError: One of these is not above 0.
    """

    result_seconds: float = 600
    result_bytes: int = 256 * MIB
    session_seconds: float = 3600
    sessions: int = 32
    session_bytes: int = 128 * MIB

    def __post_init__(self) -> None:
        _check_positive(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """Says how a person looks at pictures before they are handed out.

    Attributes:
        keys: The keys of who decides; none lets everyone decide who reaches the server.
        seconds: The seconds that a picture waits; then it is refused.
        places: The number of pictures that may wait; the next is refused.

    Raises:
        OptionError: A key is empty, or a number is not above 0.
    """

    keys: tuple[str, ...] = field(default=(), repr=False)
    seconds: float = 600
    places: int = 64

    def __post_init__(self) -> None:
        _check_positive(self, "seconds", "places")
        _check_keys(self.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOptions:
    """Says how a server is set up.

    Attributes:
        name: The model's name for clients; "" for that of the bundle's folder.
        keys: The keys that clients may show; none lets everyone in.
        hosts: The names that clients may call this server by, beside addresses and localhost.
        origins: The origins of web pages that may call it, such as https://example.org, beside its own.
        limits: What clients may ask for.
        keeping: How long and how much is kept.
        log_prompts: Whether prompts are in the log.
        review: How a person looks at pictures before they are handed out; None for nobody.
        signer: Who signs pictures with content credentials; None for nobody.
        lora_folder: The folder of the LoRA files that clients may name, None for none.
        state: The folder where results, sessions, tasks and what is to be reviewed lie, so that other processes with
            the same one answer for them; None to keep them in memory.
        replica: The name of this process among several behind a proxy that numbers requests; "" for a server alone.

    Raises:
        OptionError: A key is empty, or clients could review their own pictures.
    """

    name: str = ""
    keys: tuple[str, ...] = field(default=(), repr=False)
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    keeping: Keeping = field(default_factory=Keeping)
    log_prompts: bool = False
    review: Review | None = None
    signer: PictureSigner | None = None
    lora_folder: Path | None = None
    state: Path | None = None
    replica: str = ""

    def __post_init__(self) -> None:
        _check_keys(self.keys)
        if self.review is not None and self.keys and (not self.review.keys or set(self.keys) & set(self.review.keys)):
            raise OptionError(
                "who reviews needs keys that clients do not have, or they could approve of their own pictures"
            )

    @property
    def hides_previews(self) -> bool:
        """True if no picture on the way is shown: nobody has looked at it, or signed it."""
        return self.review is not None or self.signer is not None


def _check_keys(keys: tuple[str, ...]) -> None:
    if not all(keys):
        raise OptionError("a key is a text of one character at least, and one of these is empty; leave it out")


def _check_positive(options: Any, *names: str) -> None:
    for name in names or [one.name for one in fields(options)]:
        value = getattr(options, name)
        if not isinstance(value, (int, float)) or not value > 0:
            raise OptionError(f"{name} must be a number above 0, not {value!r}")
