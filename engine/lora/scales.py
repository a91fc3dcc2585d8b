"""Finds what a low-rank change is multiplied by: by alpha beside it, by PEFT's configuration, or by 1.

Sources: peft's `LoraLayer.update_layer` (alpha / r, with rsLoRA alpha / sqrt(r)) and `get_pattern_key`; sd-scripts'
networks/lora_flux.py (alpha / rank, an alpha of 0 or none is the rank).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from ..documents import convert_json, read_json
from ..errors import LoraError

METADATA = "lora_adapter_metadata"
"""The entry of a file's header in which diffusers keeps PEFT's configurations, one per network."""
ADAPTER_CONFIG = "adapter_config.json"
"""The file beside an adapter in which PEFT itself keeps its configuration."""
MAX_CONFIG_BYTES = 1 << 20
MAX_PATTERNS = 4096
"""The most patterns of ranks or alphas; one per layer of all networks is fewer than 1000."""
MAX_REPEATS, MAX_GROUPS = 2, 3
"""The most repeats and groups of a pattern: a match takes time with the name's length to the power of them."""
_Rank = Annotated[int, Meta(ge=1, le=1 << 20)]
_Pattern = Annotated[str, Meta(max_length=300)]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeftConfig:
    """Holds what PEFT's configuration of one network says of scales."""

    r: _Rank
    lora_alpha: float
    use_rslora: bool = False
    rank_pattern: Annotated[Mapping[_Pattern, _Rank], Meta(max_length=MAX_PATTERNS)] = field(default_factory=dict)
    alpha_pattern: Annotated[Mapping[_Pattern, float], Meta(max_length=MAX_PATTERNS)] = field(default_factory=dict)

    def scale(self, layer: str, rank: int, source: str) -> float:
        """Return alpha / rank of a layer, or alpha / sqrt(rank); raise LoraError if the rank is not as it says."""
        expected = _matching(self.rank_pattern, layer, self.r, source)
        if expected != rank:
            raise LoraError(
                f"{source}: the configuration says rank {expected} for {layer:.200}, whose tensors have rank {rank}; "
                "its scale would be a guess"
            )
        alpha = checked_alpha(_matching(self.alpha_pattern, layer, self.lora_alpha, source), layer, source)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank


def _matching(patterns: Mapping[str, Any], layer: str, default: Any, source: str) -> Any:
    """Return the value of the first pattern that matches the end of a layer's name, as PEFT does."""
    for pattern, value in patterns.items():
        try:
            if _compiled(pattern).match(layer):
                return value
        except (re.error, OverflowError) as error:
            raise LoraError(f"{source}: {pattern:.100} in its configuration is no pattern ({error})") from error
        except ValueError:
            raise LoraError(f"{source}: the pattern {pattern:.100} in its configuration is not read") from None
    return default


@lru_cache(maxsize=2 * MAX_PATTERNS)  # re keeps 512, and compiling one takes as long as a hundred matches
def _compiled(pattern: str) -> re.Pattern[str]:
    """Return a pattern compiled. Raises ValueError for one that may take for ever to match."""
    bare = re.sub(r"\(\?", "(", re.sub(r"\\.", "", pattern))  # without what is escaped
    too_slow = len(re.findall(r"[*+?{]", bare)) > MAX_REPEATS or bare.count("(") > MAX_GROUPS
    if too_slow or re.search(r"\)[*+{]|[*+?}][*+{]", bare):
        raise ValueError(pattern)
    return re.compile(rf"(.*\.)?({pattern})$")


def checked_alpha(alpha: float, layer: str, source: str) -> float:
    """Return alpha; raise LoraError unless it is a positive number."""
    if not (math.isfinite(alpha) and alpha > 0):
        raise LoraError(f"{source}: alpha of {layer:.200} is {alpha}; it must be a positive number")
    return alpha


def header_configs(metadata: Mapping[str, str], source: str) -> dict[str, PeftConfig]:
    """Return PEFT's configurations that a file's header holds, by the prefix of each network's tensors.

    Raises:
        LoraError: The entry is malformed.
    """
    if METADATA not in metadata:
        return {}
    fail = _malformed(f"{source}: the header's {METADATA}")
    document = read_json(metadata[METADATA].encode(), dict[str, Any], fail)
    gathered: dict[str, dict[str, Any]] = {}
    for key, value in document.items():
        network, dot, entry = key.partition(".")
        gathered.setdefault(network + dot if dot else "", {})[entry or network] = value
    return {prefix: _config(values, fail) for prefix, values in gathered.items()}


def adapter_config(path: Path) -> tuple[PeftConfig, str] | None:
    """Return the configuration that PEFT wrote beside an adapter's file and its SHA-256, None if there is none.

    Raises:
        LoraError: It is malformed.
    """
    file = path.with_name(ADAPTER_CONFIG)
    try:
        with file.open("rb") as reader:
            data = reader.read(MAX_CONFIG_BYTES)
    except OSError:
        return None
    fail = _malformed(str(file))
    return _config(read_json(data, dict[str, Any], fail), fail), sha256(data).hexdigest()


def _malformed(what: str) -> Callable[[str], LoraError]:
    return lambda reason: LoraError(f"{what} is malformed ({reason})")


def _config(values: Mapping[str, Any], fail: Callable[[str], Exception]) -> PeftConfig:
    names = ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern")
    return convert_json({name: values[name] for name in names if values.get(name) is not None}, PeftConfig, fail)
