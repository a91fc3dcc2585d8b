#!/usr/bin/env bash
# Library: diffusers 0.42.1 with torch 2.13.0 and transformers 5.23.0, seen 2026-11-28.
#
# Expected: with padding_mask_crop, inpainting cuts the mask's surroundings out, edits them enlarged, and puts the result
# back where it was cut; the picture that comes back is the one that was given, changed where the mask says. So do
# StableDiffusionInpaintPipeline and FluxInpaintPipeline; FluxKontextInpaintPipeline has the argument with the same words.
# Happens: FluxKontextInpaintPipeline does not put it back. What it returns has the whole picture's size but is the
# enlarged crop: no pixel outside the mask is kept, and what lies outside the crop has no influence. No warning is given.
#
# Seen:
#   FluxInpaintPipeline: (64, 64), 0 of 4032 pixels outside the mask changed
#   FluxInpaintPipeline: red surroundings make another result: True
#   FluxKontextInpaintPipeline: (64, 64), 4032 of 4032 pixels outside the mask changed
#   FluxKontextInpaintPipeline: red surroundings make another result: False
#
# Here because of it: runtime/inputs/crops.py has crops of its own, and a result is put back into the picture before it
# is handed out; there is no crop to compare with this pipeline's in tests/whole/test_against_diffusers.py.
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
mask = Image.new("L", (64, 64))
mask.paste(255, (40, 40, 48, 48))
crop = (32, 32, 56, 56)  # the mask with 8 pixels around it
red = Image.new("RGB", (64, 64), "red")
red.paste(picture.crop(crop), crop)


def edited(kind, image):
    """The picture (64, 64, 3) that comes back."""
    pipeline = kind(**parts)
    pipeline.set_progress_bar_config(disable=True)
    size = {"_auto_resize": False} if kind is FluxKontextInpaintPipeline else {"height": 64, "width": 64}
    given = {"image": image, "mask_image": mask, "padding_mask_crop": 8, "num_inference_steps": 2, "strength": 1.0}
    return np.asarray(pipeline(**given, **size, **prompt, generator=torch.Generator().manual_seed(0)).images[0])


outside = np.asarray(mask) == 0
for kind in (FluxInpaintPipeline, FluxKontextInpaintPipeline):
    result = edited(kind, picture)
    changed = (result != np.asarray(picture)).any(axis=2)[outside].sum()
    print(f"{kind.__name__}: {result.shape[:2]}, {changed} of {outside.sum()} pixels outside the mask changed")
    print(f"{kind.__name__}: red surroundings make another result: {not np.array_equal(result, edited(kind, red))}")
PYTHON
TMPDIR="$folder" "$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
FluxInpaintPipeline: (64, 64), 0 of 4032 pixels outside the mask changed
FluxInpaintPipeline: red surroundings make another result: True
FluxKontextInpaintPipeline: (64, 64), 4032 of 4032 pixels outside the mask changed
FluxKontextInpaintPipeline: red surroundings make another result: False
TEXT
diff "$folder/expected" "$folder/seen" || { echo "this has changed"; exit 1; }
