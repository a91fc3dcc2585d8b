"""Keeps sessions of edits in files, so that each of several processes can go on with them."""

from __future__ import annotations

import logging
import threading
from weakref import WeakKeyDictionary

from cachetools import TTLCache

from ..engine.errors import KontextError, RequestError
from ..runtime.runner import Runner
from ..runtime.session import Session
from .options import Keeping
from .sessions import new_name, no_session, session_changed
from .state import Identity, Shelf

logger = logging.getLogger(__name__)


class FiledSessions:
    """Keeps sessions as `Sessions` does, each in a file that is written after every turn.

    What this process read or wrote last it has in memory, too, as long as the file is that one. A turn of a session
    that another process has written meanwhile is refused, so that no turn is lost. It may be used by several threads.

    Args:
        runner: Who runs their requests.
        keeping: How long after its last use a session ends, how many there are, and how many bytes each keeps.
        shelf: Where they lie.
    """

    def __init__(self, runner: Runner, keeping: Keeping, shelf: Shelf) -> None:
        self._runner, self._keeping, self._shelf = runner, keeping, shelf
        self._open: TTLCache[str, Session] = TTLCache(keeping.sessions, keeping.session_seconds)
        self._seen: WeakKeyDictionary[Session, Identity | None] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def begin(self, picture: bytes) -> Session:
        """Begin a session with an encoded picture, which is read now. It is kept from `keep` on.

        Raises:
            ImageError: The picture cannot be read.
        """
        return Session(self._runner, picture, kept_bytes=self._keeping.session_bytes)

    def keep(self, session: Session) -> str:
        """Write a new session, and return its name. Beyond the most, the one used longest ago ends.

        Raises:
            KontextError: It cannot be written.
        """
        return self._write(new_name(), session, None)

    def go_on(self, name: str, before: Session, after: Session) -> str:
        """Write what became of a session in its place, and return its name.

        Raises:
            Refusal: Something else became of it meanwhile, or it ended (409).
            KontextError: It cannot be written.
        """
        return self._write(name, after, before)

    def _write(self, name: str, session: Session, before: Session | None) -> str:
        """Write a session in the place of what it was before, if it was, and that is the file still."""
        shelf = self._shelf
        with self._lock:
            temporary = shelf.temporary(name)
            try:
                session.save(temporary)
                with shelf.locked():
                    there = shelf.identity(name)
                    if before is not None and (there is None or there != self._seen.get(before)):
                        raise session_changed()
                    shelf.take(temporary, name)
                    self._seen[session] = shelf.identity(name)
            except RequestError as error:
                raise KontextError(f"a session cannot be kept: {error}") from error
            finally:
                temporary.unlink(missing_ok=True)
            self._open[name] = session
        self.expire()
        return name

    def get(self, name: str) -> Session:
        """Return a session, whose time begins anew.

        Raises:
            Refusal: There is none of that name any more (404).
        """
        with self._lock:
            identity = self._shelf.identity(name, self._keeping.session_seconds)
            if identity is None:
                self._open.pop(name, None)
                raise no_session(self._keeping)
            self._shelf.use(name)
            session = self._open.get(name)
            if session is None or self._seen.get(session) != identity:
                session = self._read(name)
                self._open[name], self._seen[session] = session, identity
            return session

    def _read(self, name: str) -> Session:
        try:
            return Session.open(self._runner, self._shelf.path(name), kept_bytes=self._keeping.session_bytes)
        except RequestError:
            logger.exception("a session's file cannot be read")
            raise no_session(self._keeping) from None

    def end(self, name: str) -> None:
        """End a session, and the turn that is being made of it. Raises Refusal (404) if there is none of that name."""
        self.get(name)
        with self._lock:
            self._open.pop(name, None)
            self._shelf.remove(name)

    def __len__(self) -> int:
        return len(self._shelf)

    @property
    def size_bytes(self) -> int:
        """The bytes of all files."""
        return self._shelf.size_bytes

    def expire(self) -> None:
        """End what was not used for too long, and what is too much."""
        self._shelf.trim(self._keeping.session_seconds, count=self._keeping.sessions, by_use=True)
        with self._lock:
            self._open.expire()
