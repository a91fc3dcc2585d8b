"""Bundles whose author also wrote the manifest: what was changed is listed as it is now."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from kontext_trt.engine.bundle.bundle import MANIFEST


def relist(bundle: Path, place: str, data: bytes) -> None:
    """Write a file of a bundle anew, and its size and hash into the manifest."""
    file = bundle / place
    file.unlink(missing_ok=True)  # it may be linked to another's
    file.write_bytes(data)
    manifest = json.loads((bundle / MANIFEST).read_text())
    for record in manifest["files"]:
        if record["path"] == place:
            record |= {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (bundle / MANIFEST).write_text(json.dumps(manifest))
