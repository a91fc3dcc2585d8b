"""Defines the options of filters and of signatures, for the commands that make pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ..engine.errors import OptionError
from ..runtime.filters.command import SECONDS
from ..runtime.filters.interface import ContentFilter
from ..runtime.filters.parse import FilterDetails, absolute_filter, parse_filters
from ..runtime.outputs.picture_file import check_output
from ..runtime.outputs.provenance import PictureSigner, check_signed_format

CertOption = Annotated[
    Path | None, typer.Option("--c2pa-cert", help="Sign pictures: certificates in PEM, one's own first.")
]
KeyOption = Annotated[
    Path | None, typer.Option("--c2pa-key", help="Sign pictures: the private key, which nobody else may read.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterOptions:
    """Says who is asked about prompts and pictures."""

    filter: Annotated[
        list[str] | None,
        typer.Option(help="words:FILE, onnx:PATH or command:'PROGRAM ARGUMENTS'; several. One that fails refuses."),
    ] = None
    filter_labels: Annotated[
        str | None, typer.Option(help="Labels of onnx filters that refuse, with commas. Default: what PATH.json says.")
    ] = None
    filter_threshold: Annotated[
        float | None, typer.Option(help="The score from which on they do. Default: what PATH.json says, or 0.5.")
    ] = None
    filter_seconds: Annotated[float, typer.Option(help="Seconds that a command has for an answer.")] = SECONDS

    def filters(self) -> tuple[ContentFilter, ...]:
        """Return the filters that are asked for, opened."""
        return parse_filters(self.filter or (), self.details())

    def texts(self) -> tuple[str, ...]:
        """Return the filters as they are said, for another process to open."""
        return tuple(map(absolute_filter, self.filter or ()))

    def details(self) -> FilterDetails:
        """Return what holds for all of them."""
        labels = tuple(one.strip() for one in (self.filter_labels or "").split(",") if one.strip())
        if self.filter_labels is not None and not labels:
            raise OptionError("--filter-labels names no label")
        return FilterDetails(labels=labels, threshold=self.filter_threshold, seconds=self.filter_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningOptions:
    """Says who signs pictures with content credentials."""

    c2pa_cert: CertOption = None
    c2pa_key: KeyOption = None

    def signer(self, out: Path | None = None) -> PictureSigner | None:
        """Return who signs, None if nobody does.

        Args:
            out: The file that will be written, whose format is looked at before anything is made.
        """
        files = self.files()
        if files is None:
            return None
        if out is not None:
            check_signed_format(out, check_output(out))
        return PictureSigner.open(*files)

    def files(self) -> tuple[Path, Path] | None:
        """Return the files of the certificates and of the key, None if nobody signs."""
        if (self.c2pa_cert is None) != (self.c2pa_key is None):
            raise OptionError("a signature needs --c2pa-cert and --c2pa-key, both")
        if self.c2pa_cert is None or self.c2pa_key is None:
            return None
        return self.c2pa_cert.absolute(), self.c2pa_key.absolute()
