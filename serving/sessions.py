"""Keeps sessions of edits between requests, until they were not used for a while."""

from __future__ import annotations

import secrets

from cachetools import TTLCache

from ..runtime.runner import Runner
from ..runtime.session import Session
from .options import Keeping
from .refusals import Refusal

NEW = "new"
"""The word that begins a session."""


class Sessions:
    """Keeps sessions by names that nobody can guess.

    Args:
        runner: Who runs their requests.
        keeping: How long after its last use a session ends, how many there are, and how many bytes each keeps.
    """

    def __init__(self, runner: Runner, keeping: Keeping) -> None:
        self._runner, self._keeping = runner, keeping
        self._kept: TTLCache[str, Session] = TTLCache(keeping.sessions, keeping.session_seconds)

    def begin(self, picture: bytes) -> Session:
        """Begin a session with an encoded picture, which is read now. It is kept from `keep` on.

        Raises:
            ImageError: The picture cannot be read.
        """
        return Session(self._runner, picture, kept_bytes=self._keeping.session_bytes)

    def keep(self, session: Session) -> str:
        """Keep a new session, and return its name. Beyond the most, the one used longest ago ends."""
        return self._put(new_name(), session)

    def go_on(self, name: str, before: Session, after: Session) -> str:
        """Keep what became of a session in its place, and return its name.

        Raises:
            Refusal: Something else became of it meanwhile, or it ended (409).
        """
        if self._kept.get(name) is not before:
            raise session_changed()
        return self._put(name, after)

    def _put(self, name: str, session: Session) -> str:
        self._kept.pop(name, None)
        self._kept[name] = session
        return name

    def get(self, name: str) -> Session:
        """Return a session, whose time begins anew.

        Raises:
            Refusal: There is none of that name any more (404).
        """
        session = self._kept.get(name)
        if session is None:
            raise no_session(self._keeping)
        self._put(name, session)
        return session

    def end(self, name: str) -> None:
        """End a session, and the turn that is being made of it. Raises Refusal (404) if there is none of that name."""
        self.get(name)
        del self._kept[name]

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size_bytes(self) -> int:
        """The bytes of the pictures and latents of all sessions."""
        return sum(session.size_bytes for session in list(self._kept.values()))

    def expire(self) -> None:
        """End what was not used for too long."""
        self._kept.expire()


def new_name() -> str:
    """Return a name that nobody can guess."""
    return f"session-{secrets.token_urlsafe(18)}"


def no_session(keeping: Keeping) -> Refusal:
    """Return what is said where there is no session of a name any more."""
    return Refusal(
        f"there is no such session; one ends {keeping.session_seconds:g} s after its last use, or when there are more "
        f"than {keeping.sessions}. Begin a new one with session={NEW} and a picture",
        status=404,
        code="session_not_found",
        param="session",
    )


def session_changed() -> Refusal:
    """Return what is said of a turn that was made of a session which is not the same any more."""
    return Refusal(
        "another request has edited or ended this session meanwhile, and this turn is not kept; asked again, it edits "
        "what came of the other",
        status=409,
        param="session",
    )
