"""Answers BFL's protocol: a request is taken, has a number, and is asked for until it is ready."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from contextlib import ExitStack
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from ..engine.errors import ContentRefused
from ..engine.sizes import Size
from ..runtime.filters.interface import Stage
from ..runtime.inputs.placement import nearest_size
from ..runtime.inputs.request import Sampling
from .bodies import Body
from .fields import BflFields, parse_fields
from .images import address_of, client_of, handed_out
from .making import Order
from .orders import check_usable
from .pictures import picture_bytes
from .refusals import Refusal, json_response, refusal_of
from .service import Service
from .tasks import Task
from .turns import Place
from .work import beside, watched

logger = logging.getLogger(__name__)

QUALITY = 95
"""The quality of JPEG; the protocol has no field for it."""
WIDEST = 21 / 9
"""The most that a width may be of a height, and a height of a width."""


class Bfl:
    """Answers the routes of BFL's protocol."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._tasks = service.tasks
        self._running: dict[asyncio.Task[None], tuple[str, Task]] = {}

    async def submit(self, request: Request) -> Response:
        """Take a request, and say its number and where to ask for it."""
        service, taken = self._service, False
        try:
            body = await service.bodies.read(request)
            order, fields = await beside(body.size_bytes, self._read, body)
            if service.options.log_prompts:
                request.scope["kontext.log"]["prompt"] = fields.prompt
            place = service.admit(client_of(request))
            name, task = secrets.token_urlsafe(18), Task()
            with ExitStack() as unless_taken:
                unless_taken.enter_context(place)
                await service.kept(self._tasks.put, name, task)
                unless_taken.pop_all()
            running = asyncio.ensure_future(self._run(request, order, fields, (name, task), place))
            taken = True
            self._running[running] = name, task
            running.add_done_callback(self._running.pop)
        finally:
            if not taken:
                service.bodies.release(request)
        address = f"{request.url.scheme}://{request.url.netloc}/v1/get_result?id={name}"
        return json_response({"id": name, "polling_url": address})

    async def result(self, request: Request) -> Response:
        """Say how far a request is."""
        name = request.query_params.get("id", "")
        task = await self._service.kept(self._tasks.get, name)
        if task is None:
            refusal = Refusal(
                "there is no such task, or it was too long ago", status=404, code="task_not_found", param="id"
            )
            return json_response(
                {"id": name[:80], "status": "Task not found", "result": None, **refusal.body()}, status=404
            )
        return json_response(
            {
                "id": name,
                "status": task.status,
                "result": task.result,
                "progress": round(task.progress, 3),
                "details": task.details,
                "preview": None,
            }
        )

    async def tell(self) -> None:
        """Say of what runs that it still does, where others look at it."""
        for name, task in list(self._running.values()):
            await self._service.kept(self._tasks.put, name, task)

    async def close(self) -> None:
        """Wait for what runs; who waits for a turn was sent away."""
        await asyncio.gather(*self._running, return_exceptions=True)

    def _read(self, body: Body) -> tuple[Order, BflFields]:
        fields, limits = parse_fields(body, BflFields, status=422), self._service.options.limits
        if body.pictures or body.mask is not None:
            raise Refusal(
                "pictures are input_image and input_image_2 to input_image_4 here, and there is no mask",
                param="image" if body.pictures else "mask",
                code="unknown_parameter",
                status=422,
            )
        if fields.webhook_url is not None:
            raise Refusal(
                "this server calls nobody; ask for the result at polling_url",
                param="webhook_url",
                code="url_not_supported",
            )
        check_usable(self._service, fields.prompt, masked=False)
        given = {
            "input_image": fields.input_image,
            "input_image_2": fields.input_image_2,
            "input_image_3": fields.input_image_3,
            "input_image_4": fields.input_image_4,
        }
        pictures = tuple(picture_bytes(one, name, limits) for name, one in given.items() if one)
        size = self._size(fields.aspect_ratio)
        try:
            sampling = Sampling(seed=fields.seed, size=size)
        except ValueError as error:
            raise Refusal(str(error), param="seed", status=422) from None
        return Order(prompt=fields.prompt, pictures=pictures, sampling=sampling), fields

    def _size(self, ratio: str | None) -> Size | None:
        """Return the trained size that is nearest to an aspect ratio, None for the input's own."""
        if not ratio:
            return None
        match = re.fullmatch(r"(\d{1,4}):(\d{1,4})", ratio)
        width, height = (int(match[1]), int(match[2])) if match else (0, 0)
        if not width or not height or not 1 / WIDEST <= width / height <= WIDEST:
            raise Refusal(
                f"an aspect ratio is WIDTH:HEIGHT, from 21:9 to 9:21, not {ratio[:40]!r}",
                param="aspect_ratio",
                status=422,
            )
        return nearest_size((width, height), self._service.runner.bundle.manifest.model.sizes)

    async def _run(
        self, request: Request, order: Order, fields: BflFields, named: tuple[str, Task], place: Place
    ) -> None:
        """Make a task's picture, and write down what became of it: nobody waits for an exception."""
        service, (name, task) = self._service, named
        try:
            with place:
                making = self._make(request, order, fields, named, place)
                await watched(making, None, service.options.limits.seconds)
        except Exception as error:
            refusal = refusal_of(error)
            if refusal.status == 500:
                logger.exception("a task failed")
            if refusal.status == 504:
                service.metrics.cancelled.labels(refusal.code).inc()
            task.status, task.details = _status(error), refusal.body()["error"]
        finally:
            service.bodies.release(request)
        await service.kept(self._tasks.put, name, task)

    async def _make(
        self, request: Request, order: Order, fields: BflFields, named: tuple[str, Task], place: Place
    ) -> None:
        name, task = named

        def on_step(done: int, of: int) -> None:
            task.progress = done / of
            self._tasks.step(name, task)

        (made,) = await self._service.maker.make(place, replace(order, on_step=on_step))
        file_format = fields.output_format or "png"
        encoded = await handed_out(self._service, made, file_format, QUALITY)
        end = time.time()
        task.result = {
            "sample": await address_of(self._service, request, encoded, file_format),
            "prompt": fields.prompt,
            "seed": made.seed,
            "start_time": end - place.held_seconds,
            "end_time": end,
            "duration": place.held_seconds,
        }
        task.status, task.progress = "Ready", 1.0


def _status(error: Exception) -> str:
    """Return the protocol's state for a failure."""
    if not isinstance(error, ContentRefused):
        return "Error"
    return "Content Moderated" if error.stage == Stage.OUTPUT.value else "Request Moderated"
