"""Bundles whose author also wrote the manifest: what was changed is listed as it is now."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from kontext_trt.engine.bundle.bundle import MANIFEST
from kontext_trt.engine.bundle.tensor_file import TensorFile, read_header_sha256
from kontext_trt.engine.errors import KontextError


def write_anew(file: Path, data: bytes) -> None:
    """Write a file that may be linked to another's, whose bytes stay."""
    file.unlink(missing_ok=True)
    file.write_bytes(data)


def relist(bundle: Path, place: str, data: bytes) -> None:
    """Write a file of a bundle anew, and its size and hash into the manifest."""
    write_anew(bundle / place, data)
    manifest = json.loads((bundle / MANIFEST).read_text())
    for record in manifest["files"]:
        if record["path"] == place:
            record |= {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    write_anew(bundle / MANIFEST, json.dumps(manifest).encode())


def relist_weights(bundle: Path, place: str) -> None:
    """Write what a weights file is now into the manifest; its samples only if its header can be read."""
    file = bundle / place
    with file.open("rb") as opened:
        changes: dict[str, object] = {"size_bytes": file.stat().st_size, "header_sha256": read_header_sha256(opened)}
    with suppress(KontextError, OSError, ValueError):
        changes["sample_sha256"] = TensorFile.open(file).sample_sha256()
    manifest = json.loads((bundle / MANIFEST).read_text())
    for record in manifest["weights"]:
        if record["path"] == place:
            record |= changes
            record["sha256"] = None
    write_anew(bundle / MANIFEST, json.dumps(manifest).encode())
