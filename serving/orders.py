"""Turns what clients of OpenAI's images API ask into orders, and looks at everything that can be seen beforehand."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from ..engine.components import STEP_CACHE
from ..engine.errors import RequestError
from ..runtime.inputs.prompts import check_prompt
from ..runtime.inputs.request import Sampling
from ..runtime.session import Session
from .bodies import Body
from .fields import ImageFields, parse_fields, parse_sampling, seeds_of
from .making import Order
from .options import Limits
from .pictures import picture_bytes
from .refusals import Refusal
from .service import Service
from .sessions import NEW
from .work import beside

FIELD_OF_FEATURE = {"velocity": "solver", STEP_CACHE: "step_mask"}
"""The fields that need features of the bundle."""
BEST_QUALITY = 100
"""The quality of JPEG and WebP if nobody says otherwise, as in OpenAI's contract."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Holds a request of OpenAI's API, once it was looked at.

    Attributes:
        order: The picture that is to be made.
        batches: The seeds of the pictures, those together that are made in one turn.
        session: The name of the session, "new", or "" outside one.
        by_address: Whether pictures are answered as addresses.
        file_format: "png", "jpeg" or "webp".
        quality: Of JPEG and WebP, 0 to 100.
        stream: Whether events are sent.
        previews: How many previews each picture has.
        fields: The fields as they came.
    """

    order: Order
    batches: tuple[tuple[int, ...], ...]
    session: str
    by_address: bool
    file_format: str
    quality: int
    stream: bool
    previews: int
    fields: ImageFields


async def read_order(service: Service, body: Body, *, edit: bool) -> Asked:
    """Return what a body asks for.

    Raises:
        Refusal: A field, a picture or their combination is not possible.
        ImageError: The picture that begins a session cannot be read.
    """
    fields = parse_fields(body, ImageFields)
    limits = service.options.limits
    _check_together(service, fields)
    pictures, mask = await beside(body.size_bytes, _pictures, body, limits)
    check_usable(service, fields.prompt, masked=mask is not None)
    sampling = parse_sampling(fields, limits)
    _check_features(service, sampling)
    order = Order(
        prompt=fields.prompt,
        pictures=pictures,
        mask=mask,
        sampling=sampling,
        of=fields.turn,
        loras=service.loras.choices(fields.lora),
    )
    if edit:
        order = await _edit_order(service, order, fields.session)
    elif pictures or mask or fields.session:
        param = "image" if pictures else "mask" if mask else "session"
        raise Refusal("a generation has no picture; ask /v1/images/edits for an edit", param=param)
    if order.session is None:
        _check_request(order)
    seeds = seeds_of(sampling.seed if isinstance(sampling.seed, int) else None, fields.n or 1)
    return Asked(
        order=order,
        batches=tuple(seeds[start : start + limits.batch] for start in range(0, len(seeds), limits.batch)),
        session=fields.session or "",
        by_address=fields.response_format == "url",
        file_format=fields.output_format or "png",
        quality=BEST_QUALITY if fields.output_compression is None else fields.output_compression,
        stream=bool(fields.stream),
        previews=fields.partial_images or 0,
        fields=fields,
    )


def _pictures(body: Body, limits: Limits) -> tuple[tuple[bytes, ...], bytes | None]:
    pictures = tuple(picture_bytes(one, "image", limits) for one in body.pictures)
    return pictures, None if body.mask is None else picture_bytes(body.mask, "mask", limits)


def _check_together(service: Service, fields: ImageFields) -> None:
    if fields.model not in (None, "", service.name):
        raise Refusal(
            f"there is no model {fields.model[:80]!r}; this server has {service.name!r}",
            status=404,
            code="model_not_found",
            param="model",
        )
    if fields.background == "transparent":
        raise Refusal("pictures have no transparency here; leave background out", param="background")
    if fields.output_compression not in (None, 100) and fields.output_format in (None, "png"):
        raise Refusal("PNG has no quality; ask for jpeg or webp", param="output_compression")
    if fields.stream and fields.response_format == "url":
        raise Refusal("events hold pictures, not addresses; leave response_format out", param="response_format")
    if fields.partial_images and not fields.stream:
        raise Refusal("partial images come as events; ask with stream=true", param="partial_images")
    if fields.session and (fields.n or 1) > 1:
        raise Refusal("a session's turn makes one picture; leave n out", param="n")
    if fields.turn is not None and fields.session in (None, "", NEW):
        raise Refusal("turn names a result of a session; give its session", param="turn")


def check_usable(service: Service, prompt: str, *, masked: bool) -> None:
    """Raise Refusal for a prompt that says nothing, or a mask that the bundle does not take."""
    try:
        check_prompt(prompt)
    except RequestError as error:
        raise Refusal(str(error), param="prompt") from None
    if masked and "masks" not in service.runner.bundle.manifest.features:
        raise Refusal("this bundle was exported before there were masks; export it again", param="mask")


def _check_features(service: Service, sampling: Sampling) -> None:
    """Raise Refusal for what the bundle, as it was exported, cannot do for a sampling."""
    for feature in sampling.features:
        if feature not in service.runner.bundle.manifest.features:
            raise Refusal(
                f"this bundle was exported without the feature {feature}; export it again",
                param=FIELD_OF_FEATURE[feature],
            )


async def _edit_order(service: Service, order: Order, session: str | None) -> Order:
    """Return an order with its session, if it has one."""
    if not session:
        if not order.pictures:
            raise Refusal(
                "an edit needs a picture: the file image, or a session",
                param="image",
                code="missing_required_parameter",
            )
        return order
    if session != NEW:
        kept = await service.kept(service.sessions.get, session)
        _check_turn(kept, order.of)
        return replace(order, session=kept)
    if not order.pictures:
        raise Refusal(
            "a new session begins with a picture: the file image", param="image", code="missing_required_parameter"
        )
    begun = await asyncio.to_thread(service.sessions.begin, order.pictures[0])
    return replace(order, session=begun, pictures=order.pictures[1:])


def _check_turn(session: Session, number: int | None) -> None:
    """Raise Refusal for a turn that is not there, or was let go, so that a client can tell it from other mistakes."""
    kept = {turn.number for turn in session.turns if turn.image is not None}
    if number and number not in kept:
        numbers = ", ".join(map(str, sorted(kept))) or "none"
        raise Refusal(
            f"there is no turn {number} in this session, or it was let go for its memory. Kept are 0, the picture, and "
            f"{numbers}; begin a new session with the picture to go on from",
            status=404,
            code="turn_not_found",
            param="turn",
        )


def _check_request(order: Order) -> None:
    """Raise Refusal for what no request may be."""
    try:
        order.request()
    except RequestError as error:
        late = order.sampling.begins_late and not order.pictures
        raise Refusal(str(error), param="sigmas" if late else "image") from None
