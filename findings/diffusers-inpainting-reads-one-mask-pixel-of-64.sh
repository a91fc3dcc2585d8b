#!/usr/bin/env bash
# Library: diffusers 0.42.1 with torch 2.13.0 and transformers 5.23.0, seen 2026-11-28.
#
# Expected: inpainting edits where the mask is white; at the resolution of latents, each of which is 8 x 8 pixels, an edge
# is rounded, but a marked place of nearly that size is edited, and a mask that marks something edits something.
# Happens: the mask is reduced by nearest neighbour, so the first pixel of the 64 decides alone. A square of 7 x 7 beside
# it, and strokes of 7 pixels across the whole picture, edit nothing, and what comes back is the unedited picture, without
# a warning; one single pixel edits all 64. Of a marked area the upper and left edges are cut off by up to 7 pixels.
#
# Seen:
#   FluxInpaintPipeline, 7 x 7 pixels: 0 of 64 latents edited
#   FluxInpaintPipeline, 4 strokes of 7 x 64 pixels: 0 of 64 latents edited
#   FluxInpaintPipeline, 1 pixel: 1 of 64 latents edited
#   FluxInpaintPipeline, everything: 64 of 64 latents edited
#   FluxKontextInpaintPipeline, 7 x 7 pixels: 0 of 64 latents edited
#   FluxKontextInpaintPipeline, 4 strokes of 7 x 64 pixels: 0 of 64 latents edited
#   FluxKontextInpaintPipeline, 1 pixel: 1 of 64 latents edited
#   FluxKontextInpaintPipeline, everything: 64 of 64 latents edited
#
# Here because of it: whole_latents in runtime/inputs/placed_masks.py marks every latent of which any pixel is marked.
#
# Needs no GPU; a CPU build of torch is enough. The networks are tiny and random, the prompt is a random vector.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 \
    pillow==13.0.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxInpaintPipeline,
    FluxKontextInpaintPipeline,
    FluxTransformer2DModel,
)
from PIL import Image

torch.manual_seed(0)
parts = {
    "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    "transformer": FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=(4, 4, 8), guidance_embeds=True,
    ),
    "vae": AutoencoderKL(
        block_out_channels=(4,) * 4, latent_channels=4, norm_num_groups=1, shift_factor=0.1, scaling_factor=0.4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    ),
    **dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")),
}  # fmt: skip
prompt = {"prompt_embeds": torch.randn(1, 4, 8), "pooled_prompt_embeds": torch.randn(1, 8)}

picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


def latents(kind, *boxes):
    """The latents (1, 4, 8, 8) that come back, with boxes of a mask marked."""
    mask = Image.new("L", picture.size)
    for box in boxes:
        mask.paste(255, box)
    pipeline = kind(**parts)
    pipeline.set_progress_bar_config(disable=True)
    size = {"_auto_resize": False} if kind is FluxKontextInpaintPipeline else {"height": 64, "width": 64}
    given = {"image": picture, "mask_image": mask, "num_inference_steps": 2, "strength": 1.0, "output_type": "latent"}
    packed = pipeline(**given, **size, **prompt, generator=torch.Generator().manual_seed(0)).images
    return pipeline._unpack_latents(packed, 64, 64, 8)


masks = {
    "7 x 7 pixels": [(9, 9, 16, 16)],
    "4 strokes of 7 x 64 pixels": [(8 * column + 1, 0, 8 * column + 8, 64) for column in (0, 2, 4, 6)],
    "1 pixel": [(8, 8, 9, 9)],
    "everything": [(0, 0, 64, 64)],
}
for kind in (FluxInpaintPipeline, FluxKontextInpaintPipeline):
    unedited = latents(kind)
    for words, boxes in masks.items():
        edited = (latents(kind, *boxes) != unedited).any(dim=1).sum()
        print(f"{kind.__name__}, {words}: {edited} of 64 latents edited")
PYTHON
TMPDIR="$folder" "$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
FluxInpaintPipeline, 7 x 7 pixels: 0 of 64 latents edited
FluxInpaintPipeline, 4 strokes of 7 x 64 pixels: 0 of 64 latents edited
FluxInpaintPipeline, 1 pixel: 1 of 64 latents edited
FluxInpaintPipeline, everything: 64 of 64 latents edited
FluxKontextInpaintPipeline, 7 x 7 pixels: 0 of 64 latents edited
FluxKontextInpaintPipeline, 4 strokes of 7 x 64 pixels: 0 of 64 latents edited
FluxKontextInpaintPipeline, 1 pixel: 1 of 64 latents edited
FluxKontextInpaintPipeline, everything: 64 of 64 latents edited
TEXT
diff "$folder/expected" "$folder/seen" || { echo "this has changed"; exit 1; }
