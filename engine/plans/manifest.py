"""Defines the readable manifest beside each plan.

It says what the plan was built from and for, and what the compiler made of it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ..documents import Count, Sha256, Text, convert_json, read_json
from ..errors import PlanError
from .census import Census
from .ingredients import Ingredients
from .options import BuildOptions

SCHEMA = 2
MAX_MANIFEST_BYTES = 4 << 20
"""The largest manifest that is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """Says how a build went.

    Attributes:
        options: Those that succeeded: a retry after a failure may have changed them.
        seconds: The time that the compilation which succeeded took.
        weight_bytes: The size of the weights that went in.
        peak_bytes: The most anonymous memory that the compiler's process held.
    """

    options: BuildOptions
    seconds: Annotated[float, Meta(ge=0.0, le=1e9)]
    weight_bytes: Count
    peak_bytes: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanManifest:
    """Describes a finished plan. It is written after the plan: one without it was never finished.

    `warnings` are what --allow-fallback let pass.
    """

    schema: int
    key: Text
    ingredients: Ingredients
    size_bytes: Count
    chunked_sha256: Sha256
    producer: Text
    created: Text
    build: BuildReport
    census: Census
    warnings: Annotated[tuple[Text, ...], Meta(max_length=1000)] = ()

    def to_json(self) -> bytes:
        """Return it as formatted JSON, with a checksum over all of it."""
        body = msgspec.json.encode(self, order="deterministic")
        document = {"plan": msgspec.Raw(body), "checksum": hashlib.sha256(body).hexdigest()}
        return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    """Holds the file's two parts."""

    plan: dict[str, Any]
    checksum: str


def parse_plan_manifest(data: bytes, where: str) -> PlanManifest:
    """Read a manifest from the bytes of its file, which messages call `where`.

    Raises:
        PlanError: The bytes are not exactly a manifest that `PlanManifest.to_json` wrote.
    """

    def damaged(reason: str) -> PlanError:
        return PlanError(f"{where} is damaged ({reason}); build the plan again")

    plan = read_json(data, _Document, damaged).plan
    schema = plan.get("schema")
    if not isinstance(schema, int):
        raise damaged("it has no schema")
    if schema != SCHEMA:
        raise PlanError(f"{where} has schema {schema} and this version writes {SCHEMA}; build the plan again")
    manifest = convert_json(plan, PlanManifest, damaged)
    if manifest.to_json() != data:
        raise PlanError(f"{where} was altered: its checksum does not fit it; build the plan again")
    if manifest.ingredients.key != manifest.key:
        raise PlanError(
            f"{where} has key {manifest.key}, but its fields give {manifest.ingredients.key}; build it again"
        )
    return manifest
