"""Commands that make bundles: `export` and `demo`. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from ..engine.byte_sizes import human_bytes
from ..engine.components import Operators, Precision
from ..engine.errors import MissingDependencyError
from ..engine.terminal import JsonOption, notes, print_json, progress_bars, screen

PartOption = Annotated[Path | None, typer.Option(help="This part's file or folder, if not in CHECKPOINT.")]


def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(help="A diffusers folder, a ComfyUI models folder, or a transformer file.", show_default=False),
    ],
    bundle: Annotated[Path, typer.Argument(help="The folder to make.", show_default=False)],
    precision: Annotated[
        Precision | None, typer.Option(help="What all networks compute in. Default: as each is stored.")
    ] = None,
    operators: Annotated[
        Operators, typer.Option(help="Attention and norms as single operators, or decomposed for old TensorRT.")
    ] = Operators.SINGLE,
    transformer: PartOption = None,
    vae: PartOption = None,
    clip: PartOption = None,
    t5: PartOption = None,
    tokenizers: Annotated[Path | None, typer.Option(help="A folder with tokenizer/ and tokenizer_2/.")] = None,
    hash_weights: Annotated[bool, typer.Option(help="Record the SHA-256 of all weights (reads every byte).")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace BUNDLE if it is a bundle.")] = False,
    json: JsonOption = False,
) -> None:
    """Trace a checkpoint's networks to ONNX and put them in a bundle. The weights stay where they are."""
    require_export()
    quiet_libraries()
    from .checkpoint import CheckpointFiles, open_checkpoint
    from .export import ExportOptions, export_bundle

    options = ExportOptions(precision=precision, operators=operators, hash_weights=hash_weights, overwrite=overwrite)
    files = CheckpointFiles(transformer=transformer, vae=vae, clip=clip, t5=t5, tokenizers=tokenizers)
    opened = open_checkpoint(checkpoint, files)
    with progress_bars() as bars:
        made = export_bundle(opened, bundle, options, bars)
    manifest = made.manifest
    added = sum(record.size_bytes for record in manifest.files) + sum(
        record.size_bytes for record in manifest.weights if record.origin in ("copy", "converted")
    )
    if json:
        print_json({"bundle": str(bundle), "fingerprint": made.fingerprint, "added_bytes": added})
        return
    shared = sum(record.size_bytes for record in manifest.weights if record.origin in ("hardlink", "reflink"))
    screen.print(
        f"{bundle}: six graphs over {human_bytes(shared)} of the checkpoint's own files, {human_bytes(added)} written",
    )
    notes.print(f"edit a picture with: kontext-trt edit {bundle} --image IMAGE --prompt PROMPT")


def demo(
    folder: Annotated[Path, typer.Argument(help="Where everything goes.")] = Path("demo"),
    checkpoint: Annotated[Path | None, typer.Option(help="Default: a tiny random one is made.")] = None,
    image: Annotated[Path | None, typer.Option("--image", "-i", help="The picture to edit.")] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="What to do with it.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the flow. Default: 8.")] = None,
) -> None:
    """Export a checkpoint and edit a picture with it: every part of the road, in a minute."""
    require_export()
    quiet_libraries()
    from .demo import Demo, run_demo

    given = {"checkpoint": checkpoint, "image": image, "prompt": prompt, "steps": steps}
    run_demo(folder, Demo(**{name: value for name, value in given.items() if value is not None}))


def require_export() -> None:
    """Raise MissingDependencyError unless what exporting needs is installed."""
    needed = ("torch", "diffusers", "transformers", "onnx", "onnx_ir", "onnxscript")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"exporting needs {', '.join(missing)}; install it with: pip install 'kontext-trt[export]'"
        )


def quiet_libraries() -> None:
    """Keep transformers' and diffusers' bars and advice off the screen; their errors still arrive."""
    for name in ("transformers", "diffusers"):  # in this order: importing the second makes the first speak
        library = importlib.import_module(name)
        library.logging.set_verbosity_error()
        library.logging.disable_progress_bar()
