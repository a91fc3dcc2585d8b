"""Answers OpenAI's images API: edits and generations, at once or as events."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from PIL import Image
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from ..engine.sizes import size_text
from ..runtime.flow.previews import Previews
from ..runtime.outputs.provenance import Origin
from .making import Made
from .orders import Asked, read_order
from .pictures import encode_picture
from .refusals import json_response
from .results import Stored
from .service import Service
from .sessions import NEW
from .streams import Emit, EventStream
from .turns import Place
from .work import beside, watched


class Images:
    """Answers the routes of images."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def edit(self, request: Request) -> Response | ASGIApp:
        """Edit a picture, as its fields say."""
        return await self._answer(request, "image_edit")

    async def generate(self, request: Request) -> Response | ASGIApp:
        """Make a picture from text."""
        return await self._answer(request, "image_generation")

    async def result(self, request: Request) -> Response:
        """Return a picture that was answered as an address."""
        service = self._service
        stored = await service.kept(service.results.get, request.path_params["name"])
        return Response(stored.data, media_type=stored.media_type, headers={"cache-control": "private, no-store"})

    async def _answer(self, request: Request, kind: str) -> Response | ASGIApp:
        service, keep = self._service, False
        try:
            asked = await read_order(service, await service.bodies.read(request), edit=kind == "image_edit")
            _note(service, request, asked)
            if asked.stream:
                keep = True
                return EventStream(
                    lambda emit: self._events(request, kind, asked, emit),
                    service.options.limits.seconds,
                    lambda: service.bodies.release(request),
                )
            work = self._response(request, asked)
            return await watched(work, request.receive, service.options.limits.seconds)
        finally:
            if not keep:
                service.bodies.release(request)

    async def _response(self, request: Request, asked: Asked) -> Response:
        data: list[dict[str, Any]] = []
        mades: list[Made] = []
        with self._service.admit(client_of(request)) as place:
            for seeds in asked.batches:
                for made in await self._service.maker.make(place, asked.order.seeded(seeds)):
                    encoded = await handed_out(self._service, made, asked.file_format, asked.quality)
                    mades.append(made)
                    data.append({**await self._picture(request, encoded, asked), "seed": made.seed})
        self._done(request, place, mades)
        described = await self._described(mades, asked)
        return json_response({"created": int(time.time()), **described, "data": data})

    async def _picture(self, request: Request, encoded: bytes, asked: Asked) -> dict[str, Any]:
        if not asked.by_address:
            return {"b64_json": base64.b64encode(encoded).decode()}
        return {"url": await address_of(self._service, request, encoded, asked.file_format)}

    async def _described(self, mades: list[Made], asked: Asked) -> dict[str, Any]:
        """Return what is said of all pictures together."""
        last = mades[-1]
        return {
            "background": "opaque",
            "output_format": asked.file_format,
            "size": size_text(last.image.size),
            "usage": _sum([made.usage for made in mades]),
            **await self._session(asked, last),
            **_warned(mades),
        }

    async def _session(self, asked: Asked, made: Made) -> dict[str, Any]:
        """Keep the session, which is not begun before its first turn was made, and return what is said of it."""
        if asked.order.session is None or made.session is None:
            return {}
        sessions, kept = self._service.sessions, self._service.kept
        if asked.session == NEW:
            name = await kept(sessions.keep, made.session)
        else:
            name = await kept(sessions.go_on, asked.session, asked.order.session, made.session)
        return {"session": name, "turn": made.turn}

    async def _events(self, request: Request, kind: str, asked: Asked, emit: Emit) -> None:
        common = {"background": "opaque", "output_format": asked.file_format, "quality": "auto"}
        mades: list[Made] = []

        async def send(name: str, image: Image.Image, encoded: bytes, **more: Any) -> None:
            kind_and_name = f"{kind}.{name}"
            event = {
                "type": kind_and_name,
                "b64_json": base64.b64encode(encoded).decode(),
                "created_at": int(time.time()),
                "size": size_text(image.size),
                **common,
                **more,
            }
            await emit(kind_and_name, event)

        with self._service.admit(client_of(request)) as place:
            for seeds in asked.batches:
                shown, order = _Shown(), asked.order.seeded(seeds)
                if asked.previews:
                    order = replace(order, previews=Previews(count=asked.previews, show=shown.show))
                async with aclosing(shown.until(self._service.maker.make(place, order))) as previews:
                    async for number, pictures in previews:
                        for image in pictures:
                            preview = await encoded_picture(image, asked.file_format, asked.quality)
                            await send("partial_image", image, preview, partial_image_index=number)
                for made in await shown.made():
                    mades.append(made)
                    self._done(request, place, mades)
                    encoded = await handed_out(self._service, made, asked.file_format, asked.quality)
                    kept = await self._session(asked, made)
                    more = {"seed": made.seed, "usage": made.usage, **kept, **_warned([made])}
                    await send("completed", made.image, encoded, **more)

    def _done(self, request: Request, place: Place, mades: list[Made]) -> None:
        log = request.scope["kontext.log"]
        log |= {
            "pictures": len(mades),
            "size": size_text(mades[-1].image.size),
            "waited": round(place.waited_seconds, 4),
        }


Previewed = AsyncGenerator[tuple[int, tuple[Image.Image, ...]], None]
"""The previews as they come, each with its number: a picture for each seed."""


class _Shown:
    """Brings previews from the thread that makes them to the loop that sends them."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[int, tuple[Image.Image, ...]] | None] = asyncio.Queue()
        self._making: asyncio.Future[tuple[Made, ...]] | None = None

    def show(self, number: int, pictures: Any) -> None:
        """Pass a preview on; called in the thread."""
        self._loop.call_soon_threadsafe(self._queue.put_nowait, (number, pictures))

    async def until(self, making: Coroutine[Any, Any, tuple[Made, ...]]) -> Previewed:
        """Yield previews until the pictures are made, or the caller is cancelled, which cancels the making."""
        self._making = task = asyncio.ensure_future(making)
        task.add_done_callback(lambda _: self._queue.put_nowait(None))
        try:
            while (item := await self._queue.get()) is not None:
                yield item
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def made(self) -> tuple[Made, ...]:
        """Return the pictures, or raise what became of it."""
        assert self._making is not None
        return await self._making


def _note(service: Service, request: Request, asked: Asked) -> None:
    """Write down for the log what is asked; the prompt only where that is wanted."""
    log = request.scope["kontext.log"]
    log["references"] = len(asked.order.pictures)
    if service.options.log_prompts:
        log["prompt"] = asked.fields.prompt


async def encoded_picture(image: Image.Image, file_format: str, quality: int) -> bytes:
    """Return a picture as the bytes of a file, as `encode_picture` does."""
    return await beside(image.width * image.height, encode_picture, image, file_format, quality)


async def handed_out(service: Service, made: Made, file_format: str, quality: int) -> bytes:
    """Return a picture that was made as the bytes of a file, signed where that is wanted.

    Raises:
        ProvenanceError: It could not be signed.
    """
    signer = service.options.signer
    if signer is None:
        return await encoded_picture(made.image, file_format, quality)

    def signed() -> bytes:
        return signer.sign(encode_picture(made.image, file_format, quality), Origin.of(made.request, made.inputs))

    return await asyncio.to_thread(signed)


def client_of(request: Request) -> str:
    """Return who takes turns with others: the address that the connection is from."""
    return "" if request.client is None else request.client.host


async def address_of(service: Service, request: Request, encoded: bytes, file_format: str) -> str:
    """Keep a picture, and return the address that it can be fetched from, with the client's own name of this server."""
    stored = Stored(data=encoded, media_type=f"image/{file_format}")
    name = await service.kept(service.results.put, stored)
    return f"{request.url.scheme}://{request.url.netloc}/v1/results/{name}"


def _warned(mades: list[Made]) -> dict[str, Any]:
    words = [word for made in mades for word in made.warnings]
    return {"warnings": list(dict.fromkeys(words))} if words else {}


def _sum(usages: list[Mapping[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for usage in usages:
        for name, value in usage.items():
            total[name] = _sum([total.get(name, {}), value]) if isinstance(value, dict) else total.get(name, 0) + value
    return total
