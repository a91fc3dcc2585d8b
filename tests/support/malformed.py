"""Malformed requests of fixed seeds: forms with wrong bytes, pictures cut short or swollen, fields of wrong types."""

from __future__ import annotations

import base64
import io
import json
import random
import struct
import zlib
from dataclasses import dataclass
from typing import Any

from PIL import Image

ROUTES = ("/v1/images/edits", "/v1/images/generations", "/v1/flux-kontext-pro")
BOUNDARY = "the-boundary"
FIELDS = (
    "prompt", "n", "size", "background", "output_format", "output_compression", "response_format", "stream",
    "partial_images", "seed", "turn", "model", "num_inference_steps", "guidance_scale", "session", "lora", "user",
    "image", "images", "mask", "input_image", "aspect_ratio", "webhook_url",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 3, 1e308, -0.0, 2**63, 2**64, -(2**70), "", " ", "x", "null", "NaN", "1e9", "\x00",
    "\ud800",
    "🐈" * 50, "a" * 40_000, "../../etc/passwd", "https://example.org/a.png", "data:,", [], [1], ["x"], {}, {"a": {}},
    {"image_url": 7}, [[[[]]]],
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Malformed:
    route: str
    headers: dict[str, str]
    body: bytes


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def swollen_png(draw: random.Random) -> bytes:
    """A PNG of a few kilobytes that says, or holds, that it is much more."""
    width, height = draw.choice([(60_000, 60_000), (20_000, 20_000), (5000, 5000), (2**31 - 1, 1), (64, 64)])
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, draw.choice([0, 2, 3, 6, 9]), 0, 0, 0))]
    much = zlib.compress(bytes(8 << 20))
    if draw.random() < 0.5:
        parts.append(chunk(b"iCCP", b"profile\0\0" + much))
    if draw.random() < 0.5:
        parts.append(chunk(b"zTXt", b"words\0\0" + much))
    parts += [chunk(b"IDAT", draw.choice([much, zlib.compress(b""), b"", b"no zlib"])), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def picture(draw: random.Random) -> bytes:
    file = io.BytesIO()
    mode = draw.choice(["RGB", "L", "RGBA", "P", "1", "I;16", "LA"])
    size = draw.randint(1, 80), draw.randint(1, 80)
    image = Image.new("RGB", size, "teal").convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = image.convert("I").convert("I;16")
    file_format = draw.choice(["PNG", "GIF", "TIFF"] if mode not in ("RGB", "L") else ["PNG", "JPEG", "WEBP", "BMP"])
    if mode == "I;16":
        file_format = "PNG"
    image.save(file, format=file_format)
    return file.getvalue()


def damaged(data: bytes, draw: random.Random) -> bytes:
    """The same bytes cut short, overwritten, doubled or swapped here and there."""
    found = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        if not found:
            break
        at = draw.randrange(len(found))
        match draw.randrange(5):
            case 0:
                del found[at:]
            case 1:
                found[at] = draw.randrange(256)
            case 2:
                found[at : at + draw.randint(1, 30)] = draw.randbytes(draw.randint(0, 30))
            case 3:
                found[at:at] = found[max(0, at - 40) : at]
            case 4:
                del found[at : at + draw.randint(1, 60)]
    return bytes(found)


def any_picture(draw: random.Random) -> bytes:
    kind = draw.randrange(4)
    if kind == 0:
        return swollen_png(draw)
    return damaged(picture(draw), draw) if kind < 3 else picture(draw)


def form(draw: random.Random) -> bytes:
    parts = [(b'name="prompt"', b"x"), (b'name="num_inference_steps"', b"1"), (b'name="size"', b"32x32")]
    for _ in range(draw.randint(0, 3)):
        value = draw.choice(VALUES)
        text = value if isinstance(value, str) else str(value)
        parts.append((f'name="{draw.choice(FIELDS)}"'.encode(), text.encode(errors="surrogatepass")))
    for name in draw.choices(["image", "image[]", "mask", "prompt"], k=draw.randint(0, 3)):
        parts.append((f'name="{name}"; filename="a.png"'.encode(), any_picture(draw)))
    draw.shuffle(parts)
    body = b"".join(
        b"--" + BOUNDARY.encode() + b"\r\nContent-Disposition: form-data; " + name + b"\r\n\r\n" + value + b"\r\n"
        for name, value in parts
    )
    return body + b"--" + BOUNDARY.encode() + b"--\r\n"


def document(draw: random.Random) -> bytes:
    fields: dict[str, Any] = {"prompt": "x", "num_inference_steps": 1, "size": "32x32"}
    for _ in range(draw.randint(1, 4)):
        fields[draw.choice(FIELDS)] = draw.choice(VALUES)
    if draw.random() < 0.5:
        fields["image"] = base64.b64encode(any_picture(draw)).decode()
    return json.dumps(fields).encode()


def malformed(seed: int) -> Malformed:
    """A request that is wrong somewhere, nearly always."""
    draw = random.Random(seed)
    if draw.random() < 0.6:
        body, kind = form(draw), f"multipart/form-data; boundary={BOUNDARY}"
    else:
        body, kind = document(draw), "application/json"
    if draw.random() < 0.5:
        body = damaged(body, draw)
    if draw.random() < 0.1:
        kind = draw.choice(
            ["", "text/plain", "multipart/form-data", "multipart/form-data; boundary=", "application/json; charset=x",
             "multipart/form-data; boundary=other", f"multipart/form-data; charset=none; boundary={BOUNDARY}"]
        )  # fmt: skip
    return Malformed(route=draw.choice(ROUTES), headers={"content-type": kind}, body=body)
