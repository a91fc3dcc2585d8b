"""Reads what a client sends: JSON or a form, within limits of bytes, files and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from ..runtime.inputs.references import MAX_REFERENCES
from .options import Limits
from .refusals import Refusal

MAX_FIELDS = 64
"""The most fields of a form that are no files."""
LINGER_SECONDS = 5.0
"""The seconds that the rest of a body that is too large is read and thrown away, so that its answer can be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """Holds what a request says.

    Attributes:
        fields: The fields by name: texts of a form, values of JSON.
        pictures: The pictures that came as files or in the fields of pictures, each bytes or a text.
        mask: The mask, None without.
        form: Whether it came as a form, whose numbers are texts.
        size_bytes: Its bytes as they came.
    """

    fields: dict[str, Any]
    pictures: list[Any] = field(default_factory=list, repr=False)
    mask: Any = field(default=None, repr=False)
    form: bool = False
    size_bytes: int = 0


class Bodies:
    """Reads bodies, all of them together within a number of bytes.

    Attributes:
        held_bytes: The bytes of the bodies that are being read or used.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.held_bytes = 0

    def release(self, request: Request) -> None:
        """Count a request's bytes no more."""
        self.held_bytes -= request.scope.pop("kontext.body_bytes", 0)

    async def read(self, request: Request) -> Body:
        """Read a request's body: multipart/form-data or JSON.

        Raises:
            Refusal: It is of another type (415), too large (413), too slow (408), or cannot be read (400).
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in ("multipart/form-data", "application/json"):
            raise Refusal(
                f"a body is multipart/form-data or application/json, not {kind[:80] or 'without a type'}", status=415
            )
        limit = self._limits.body_bytes
        if int(request.headers.get("content-length", "0")) > 8 * limit:  # not worth lingering for
            raise _too_large(limit)
        try:
            reading = self._form(request) if kind == "multipart/form-data" else self._json(request)
            return await asyncio.wait_for(reading, self._limits.upload_seconds)
        except asyncio.TimeoutError:
            raise Refusal(f"the body did not arrive within {self._limits.upload_seconds:g} s", status=408) from None
        except ClientDisconnect:
            raise Refusal("the client went away", status=499) from None
        except Refusal as refusal:
            if refusal.status == 413 and request.scope.get("kontext.more_body"):
                await _linger(request)
            raise

    async def _chunks(self, request: Request) -> AsyncGenerator[bytes, None]:
        """Yield a body within the limits."""
        scope, size, more = request.scope, 0, True
        while more:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk = message.get("body", b"")
            more = scope["kontext.more_body"] = message.get("more_body", False)
            size += len(chunk)
            self.held_bytes += len(chunk)
            scope["kontext.body_bytes"] = size
            if size > self._limits.body_bytes:
                raise _too_large(self._limits.body_bytes)
            if self.held_bytes > self._limits.total_bytes:
                raise Refusal(
                    "the requests that are being read have more bytes together than this server keeps; try again",
                    status=429,
                    code="too_many_bytes",
                    headers={"retry-after": "5"},
                )
            yield chunk

    async def _json(self, request: Request) -> Body:
        data = b"".join([chunk async for chunk in self._chunks(request)])
        try:
            fields = msgspec.json.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Refusal(f"the body is not JSON: {error}", code="invalid_json") from None
        if not isinstance(fields, dict):
            raise Refusal(f"the body is a JSON object of fields, not {type(fields).__name__}", code="invalid_json")
        pictures, mask = _json_pictures(fields), fields.pop("mask", None)
        return Body(fields=fields, pictures=pictures, mask=_address("mask", mask), size_bytes=len(data))

    async def _form(self, request: Request) -> Body:
        parser = _FormParser(
            request.headers,
            self._chunks(request),
            max_files=MAX_REFERENCES + 1,
            max_fields=MAX_FIELDS,
            max_part_size=self._limits.body_bytes,
        )
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise Refusal(f"the form cannot be read: {error.message}", code="invalid_form") from None
        if not parser.ended:
            parser.close()
            raise Refusal("the form is cut short: its last boundary is missing", code="invalid_form")
        fields: dict[str, Any] = {}
        pictures: list[Any] = []
        loras: list[str] = []
        mask: Any = None
        for name, content in await _contents(form):
            if name in ("image", "image[]"):
                pictures.append(content)
            elif name in ("lora", "lora[]") and isinstance(content, str):
                loras.append(content)
            elif name in fields or (name == "mask" and mask is not None):
                raise Refusal("this field came twice", param=name[:80], code="duplicate_field")
            elif name == "mask":
                mask = content
            elif isinstance(content, bytes):
                raise Refusal(
                    "this field is a text, and came as a file; files are image, image[] and mask", param=name[:80]
                )
            else:
                fields[name] = content
        if loras:
            fields["lora"] = loras
        size = request.scope["kontext.body_bytes"]
        return Body(fields=fields, pictures=pictures, mask=mask, form=True, size_bytes=size)


class _FormParser(MultiPartParser):
    """Parses a form, and knows whether it was whole: of one that is cut short the last part is dropped without a word.

    Attributes:
        ended: Whether the last boundary was seen.
    """

    ended = False

    def on_end(self) -> None:
        self.ended = True

    def close(self) -> None:
        """Close the files of parts that never ended, which no form holds."""
        for file in self._files_to_close_on_error:
            file.close()


async def _contents(form: FormData) -> list[tuple[str, Any]]:
    """Return a form's fields, texts as they are and files as bytes, and close the files."""
    try:
        return [
            (name, await value.read() if isinstance(value, UploadFile) else value) for name, value in form.multi_items()
        ]
    finally:
        await form.close()


def _json_pictures(fields: dict[str, Any]) -> list[Any]:
    """Return what stands under `image` and `images`, and take it out of the fields."""
    found: list[Any] = []
    for name in ("image", "images"):
        value = fields.pop(name, None)
        values = value if isinstance(value, list) else [] if value is None else [value]
        found += [_address(name, one) for one in values]
    return found


def _address(name: str, value: Any) -> Any:
    """Return the text of a picture that is written as OpenAI does in JSON: {"image_url": "data:..."}."""
    if isinstance(value, dict):
        if set(value) == {"image_url"}:
            return value["image_url"]
        raise Refusal('a picture in JSON is a data: URL, base64, or {"image_url": "data:..."}', param=name)
    return value


def _too_large(limit: int) -> Refusal:
    return Refusal(
        f"the body is larger than {limit:,} bytes; make the pictures smaller",
        status=413,
        headers={"connection": "close"},
    )


async def _linger(request: Request) -> None:
    """Read the rest for a moment: who still sends does not read, and a connection that is reset loses the answer."""

    async def rest() -> None:
        while True:
            message = await request.receive()
            if message["type"] != "http.request" or not message.get("more_body", False):
                return

    try:
        await asyncio.wait_for(rest(), LINGER_SECONDS)
    except asyncio.TimeoutError:
        return
