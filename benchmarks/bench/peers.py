"""Measures what a user would run instead, in processes of their own: diffusers, with the same weights and noise."""

from __future__ import annotations

import importlib.util
import tempfile
from enum import Enum
from pathlib import Path

import msgspec

from ...engine.components import Precision
from ...engine.errors import RequestError
from .child import ChildError, run_child
from .records import Case, EngineRun, Unmeasured

__all__ = ["TIMEOUT_S", "PeerName", "PeerRequest", "measure_peer", "picture_path", "read_request"]

MODULE = "kontext_trt.benchmarks.bench.peer_process"
TIMEOUT_S = 1800.0
"""The seconds for one peer: compiling at 1024x1024 took 492 s on an H200, with FP8 several times as long."""


class PeerName(str, Enum):
    """Names the peers.

    EAGER is as its manual starts; COMPILED has torch.compile's search for the best kernels, and a CUDA graph; FP8 is
    the same with torchao's linear layers in FP8, scaled by row.
    """

    EAGER = "diffusers"
    COMPILED = "diffusers-compiled"
    FP8 = "diffusers-fp8"

    @property
    def compiled(self) -> bool:
        return self is not PeerName.EAGER


_NEEDS = {
    PeerName.EAGER: ("torch", "diffusers"),
    PeerName.COMPILED: ("torch", "diffusers"),
    PeerName.FP8: ("torch", "diffusers", "torchao"),
}


class PeerRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Says what the child measures.

    Attributes:
        peer: Which peer.
        checkpoint: A diffusers folder.
        case: The request.
        image: A picture of the case's reference size.
        repeat: Warm requests.
        picture: Where the first picture goes.
        precision: The type to compute in ("bf16"), None for the checkpoint's own.
    """

    peer: PeerName
    checkpoint: Path
    case: Case
    image: Path | None
    repeat: int
    picture: Path
    precision: str | None = None
    search_decoder: bool = True


def measure_peer(
    peer: PeerName,
    checkpoint: Path,
    case: Case,
    image: Path | None,
    *,
    repeat: int,
    folder: Path,
    timeout_s: float = TIMEOUT_S,
    precision: str | None = None,
    search_decoder: bool = True,
) -> EngineRun | Unmeasured:
    """Measure a peer in a child process.

    Its first picture is FOLDER/PEER.png, what it printed FOLDER/PEER.log, and what it compiled FOLDER/PEER-compiled,
    which a second measurement in the same folder finds again. A peer that is not installed or fails is a Failure.
    """
    missing = [name for name in _NEEDS[peer] if importlib.util.find_spec(name) is None]
    if missing:
        return Unmeasured(engine=peer.value, reason=f"{missing[0]} is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    request = PeerRequest(
        peer=peer,
        checkpoint=checkpoint,
        case=case,
        image=image,
        repeat=repeat,
        picture=picture_path(folder, peer.value),
        precision=precision if precision in {one.value for one in Precision} else None,
        search_decoder=search_decoder,
    )
    environment = {
        "HF_HUB_OFFLINE": "1",
        "TORCHINDUCTOR_CACHE_DIR": str((folder / f"{peer.value}-compiled").absolute()),
    }
    with tempfile.TemporaryDirectory() as name:
        asked, found = Path(name) / "request.json", Path(name) / "run.json"
        asked.write_bytes(msgspec.json.encode(request, enc_hook=str))
        try:
            anonymous = run_child(
                "-m",
                MODULE,
                str(asked),
                str(found),
                log=folder / f"{peer.value}.log",
                timeout_s=timeout_s,
                environment=environment,
            )
        except ChildError as error:
            return Unmeasured(engine=peer.value, reason=str(error))
        run = msgspec.json.decode(found.read_bytes(), type=EngineRun)
    return msgspec.structs.replace(run, memory=msgspec.structs.replace(run.memory, host_anonymous=anonymous))


def picture_path(folder: Path, engine: str) -> Path:
    """Return where an engine's first picture lies in a report."""
    return folder / f"{engine}.png"


def read_request(file: Path) -> PeerRequest:
    """Read a request that `measure_peer` wrote; raise RequestError for a file that holds none."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=PeerRequest, dec_hook=lambda kind, value: kind(value))
    except msgspec.DecodeError as error:
        raise RequestError(f"{file} is not a request to a peer ({error}); `measure_peer` writes them") from error
