"""Makes a newcomer's ComfyUI folders, with files in ComfyUI's names, by torch.

    python -m kontext_trt.examples.first_hour.comfyui_tree FOLDER

FOLDER/ComfyUI has all four parts of a tiny random model. FOLDER/TrainedComfyUI has the small trained model's
transformer alone: its autoencoder has groups of another size than files without a configuration can say.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from ...benchmarks.program import run_main
from ...export.checkpoint.layouts import SIZES_FILE
from ...export.environment import quiet_libraries
from ...export.tiny import write_tiny_checkpoint
from .machine import ROOT

TRAINED = "TrainedComfyUI/models/diffusion_models/small-kontext.safetensors"
"""The trained transformer's place in the folder."""


def write_trees(folder: Path, checkpoint: Path) -> None:
    """Write ComfyUI and TrainedComfyUI into a folder; the tests' own table of names makes the files."""
    sys.path.insert(0, str(ROOT / "tests/support"))
    from safetensors.torch import load_file, save_file
    from single_files import bfl_transformer, write_models_folder  # pyright: ignore[reportMissingImports]

    write_tiny_checkpoint(folder / ".tiny")
    write_models_folder(folder / ".tiny", folder / "ComfyUI/models")
    trained = load_file(checkpoint / "transformer/diffusion_pytorch_model.safetensors")
    (folder / TRAINED).parent.mkdir(parents=True)
    save_file(bfl_transformer(trained), folder / TRAINED)
    shutil.copy(checkpoint / SIZES_FILE, folder / "TrainedComfyUI/models")


def main() -> None:
    """Write the folders."""
    parser = argparse.ArgumentParser(description="ComfyUI's folders, of a tiny model and of the small trained one.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "examples/small_kontext/checkpoint")
    given = parser.parse_args()
    quiet_libraries()
    write_trees(given.folder, given.checkpoint)


if __name__ == "__main__":
    run_main(main)
