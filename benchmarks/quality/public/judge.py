"""Asks a judge over HTTP, as OpenAI's chat completions are asked, with the standard library: it is one POST.

A client library would bring a dozen packages for it, and retry by rules of its own.
"""

from __future__ import annotations

import http.client
import json
import logging
import math
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from ....engine.errors import BenchmarkError, OptionError
from .verdicts import BadAnswer, Marks, read_marks

logger = logging.getLogger(__name__)

PATH = "/chat/completions"
MAX_ANSWER_BYTES = 1 << 20
MAX_WAIT_SECONDS = 60.0
NOT_THERE = (401, 403, 404, 405)
"""The statuses that would be the same for every question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeOptions:
    """Says who judges.

    Attributes:
        url: The base of an OpenAI-compatible API, such as http://127.0.0.1:8000/v1.
        model: The model that judges.
        key: The key that goes with each question, None for none.
        workers: How many questions are asked at once.
        attempts: How often a question is asked at most.
        timeout_seconds: How long an answer may take.
        wait_seconds: The pause before a question is asked again; each further one is twice as long.

    Raises:
        OptionError: The URL is none of http or https, no model is named, or a number is out of range.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    workers: int = 4
    attempts: int = 4
    timeout_seconds: float = 120.0
    wait_seconds: float = 1.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise OptionError(f"--judge-url is the base of an API, such as http://127.0.0.1:8000/v1, not {self.url!r}")
        if not self.model.strip():
            raise OptionError("--judge-model names the model that judges; it is empty")
        if not 1 <= self.workers <= 64 or not 1 <= self.attempts <= 20:
            raise OptionError(
                f"--judge-workers must be 1 to 64 and the attempts 1 to 20, not {self.workers} and {self.attempts}"
            )
        if self.key and parts.scheme == "http" and not _is_this_machine(parts.hostname):
            logger.warning("the judge's key goes to %s without encryption; use https", parts.hostname)

    @property
    def endpoint(self) -> str:
        """The URL that questions go to."""
        base = self.url.rstrip("/")
        return base if base.endswith(PATH) else base + PATH


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class Failed(Exception):
    """Reports a question that got no marks. `kind` is one word for counting, `raw` the last answer."""

    def __init__(self, kind: str, words: str, raw: str = "", again: bool = True, after: float | None = None) -> None:
        super().__init__(words)
        self.kind, self.raw, self.again, self.after = kind, raw, again, after


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """Holds what came of a question: marks, or what the last attempt failed with.

    `faults` counts the attempts that failed by kind: "rate limit", "server", "timeout", "connection", "malformed",
    "refused".
    """

    marks: Marks | None
    raw: str
    attempts: int
    faults: Mapping[str, int]
    error: str | None = None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would carry the key elsewhere."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


class Judge:
    """Asks questions, several threads at once, and asks again where that may help."""

    def __init__(self, options: JudgeOptions) -> None:
        self.options = options
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._stopped = threading.Event()
        self._temperature = True

    def stop(self) -> None:
        """End the pauses of questions that wait to be asked again."""
        self._stopped.set()

    def ask(self, text: str, pictures: tuple[str, str]) -> Heard:
        """Ask for marks, as often as the options say.

        Args:
            text: The question.
            pictures: The original and the answer, as data URLs.

        Raises:
            BenchmarkError: The judge refuses every question: the URL, model or key is wrong.
        """
        faults: Counter[str] = Counter()
        raw, words, attempt = "", "", 0
        while attempt < self.options.attempts:
            attempt += 1
            try:
                raw = self._post(text, pictures)
                return Heard(marks=_marks(raw), raw=raw, attempts=attempt, faults=dict(faults))
            except Failed as failed:
                faults[failed.kind] += 1
                raw, words = failed.raw or raw, str(failed)
                if not failed.again or attempt == self.options.attempts or self._pause(attempt, failed.after):
                    break
        return Heard(marks=None, raw=raw, attempts=attempt, faults=dict(faults), error=words)

    def _pause(self, attempt: int, after: float | None) -> bool:
        """Wait before the next attempt; return whether nobody wants it any more."""
        wait = self.options.wait_seconds * 2 ** (attempt - 1) if after is None else after
        return self._stopped.wait(min(wait, MAX_WAIT_SECONDS))

    def _post(self, text: str, pictures: tuple[str, str]) -> str:
        """Return the text of one answer."""
        images = [{"type": "image_url", "image_url": {"url": picture}} for picture in pictures]
        body: dict[str, Any] = {
            "model": self.options.model,
            "messages": [{"role": "user", "content": [{"type": "text", "text": text}, *images]}],
        }
        if self._temperature:
            body["temperature"] = 0
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.options.key:
            headers["Authorization"] = f"Bearer {self.options.key}"
        request = urllib.request.Request(self.options.endpoint, json.dumps(body).encode(), headers, method="POST")
        deadline = time.monotonic() + self.options.timeout_seconds
        try:
            with self._opener.open(request, timeout=self.options.timeout_seconds) as response:
                return _content(_read(response, deadline))
        except urllib.error.HTTPError as error:
            with error:
                self._refused(error, error.read(4096).decode(errors="replace"))
            raise AssertionError("_refused raises") from error
        except TimeoutError as error:
            raise Failed("timeout", f"no answer within {self.options.timeout_seconds:g} s") from error
        except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
            if isinstance(getattr(error, "reason", None), TimeoutError):
                raise Failed("timeout", f"no answer within {self.options.timeout_seconds:g} s") from error
            raise Failed("connection", f"{self.options.endpoint} cannot be reached: {error}") from error

    def _refused(self, error: urllib.error.HTTPError, said: str) -> None:
        words = f"the judge answers {error.code}: {said[:500] or error.reason}"
        if error.code in NOT_THERE or 300 <= error.code < 400:
            raise BenchmarkError(
                f"{self.options.endpoint}: {words}. Check --judge-url, --judge-model and the key"
            ) from error
        if error.code == 400 and self._temperature and "temperature" in said:
            self._temperature = False  # models that reason take none; the others are asked as before
            raise Failed("refused", words, said, after=0.0)
        if error.code == 429:
            raise Failed("rate limit", words, said, after=_seconds(error.headers.get("Retry-After")))
        raise Failed("server" if error.code >= 500 else "refused", words, said, again=error.code >= 500)


def _read(response: Any, deadline: float) -> bytes:
    """Return the body. The timeout of a socket is for each piece, and many pieces may come slowly."""
    data = bytearray()
    while piece := response.read1(1 << 16):
        data += piece
        if len(data) > MAX_ANSWER_BYTES:
            raise Failed("malformed", f"the answer has more than {MAX_ANSWER_BYTES} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError
    return bytes(data)


def _content(data: bytes) -> str:
    """Return what the first choice of a completion says."""
    text = data.decode(errors="replace")
    try:
        content = json.loads(data)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise Failed("malformed", f"the answer is no chat completion: {text[:200]!r}", text) from None
    if not isinstance(content, str):
        raise Failed("malformed", f"the completion has no text: {text[:200]!r}", text)
    return content


def _marks(raw: str) -> Marks:
    try:
        return read_marks(raw)
    except BadAnswer as error:
        raise Failed("malformed", str(error), raw) from None


def _seconds(text: str | None) -> float | None:
    """Return the seconds of a Retry-After header; dates are left to the usual pauses."""
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
