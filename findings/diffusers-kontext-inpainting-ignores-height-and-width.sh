#!/usr/bin/env bash
# Library: diffusers 0.42.1 with torch 2.13.0 and transformers 5.23.0, seen 2026-11-28.
#
# Expected: height and width are the size of the result ("the height in pixels of the generated image"), max_area bounds
# its area, as in FluxKontextPipeline; and pictures of one batch that have different sizes are refused, as tensors would
# be.
# Happens: FluxKontextInpaintPipeline reads them, warns with the size to which they "have been adjusted", and then takes
# the size of the first picture, or by default that of about a megapixel that is nearest to its shape. The other pictures
# of a batch are stretched to the same size, whatever their shape, without a warning.
#
# Seen:
#   64x64, asked for 128x128: 64x64
#   64x64, asked for 32x32: 64x64
#   64x64, asked for 512x512, by default: 1024x1024
#   64x64 and 128x64: 64x64 64x64
#   128x64 and 64x64: 128x64 128x64
#
# Here because of it: _check in runtime/inputs/prepared.py refuses another size than the picture's beside a mask.
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

square = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
broad = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 128, 3), np.uint8))
pipeline = FluxKontextInpaintPipeline(**parts)
pipeline.set_progress_bar_config(disable=True)


def sizes(*pictures, **asked):
    """The sizes of the pictures that come back."""
    given = {"image": list(pictures), "mask_image": [Image.new("L", one.size, 255) for one in pictures]}
    embeddings = {name: value.repeat_interleave(len(pictures), dim=0) for name, value in prompt.items()}
    result = pipeline(**given, **embeddings, **asked, num_inference_steps=1, strength=1.0)
    return " ".join(f"{one.width}x{one.height}" for one in result.images)


print("64x64, asked for 128x128:", sizes(square, width=128, height=128, max_area=128 * 128, _auto_resize=False))
print("64x64, asked for 32x32:", sizes(square, width=32, height=32, max_area=32 * 32, _auto_resize=False))
print("64x64, asked for 512x512, by default:", sizes(square, width=512, height=512, max_area=512 * 512))
print("64x64 and 128x64:", sizes(square, broad, _auto_resize=False))
print("128x64 and 64x64:", sizes(broad, square, _auto_resize=False))
PYTHON
TMPDIR="$folder" "$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
64x64, asked for 128x128: 64x64
64x64, asked for 32x32: 64x64
64x64, asked for 512x512, by default: 1024x1024
64x64 and 128x64: 64x64 64x64
128x64 and 64x64: 128x64 128x64
TEXT
diff "$folder/expected" "$folder/seen" || { echo "this has changed"; exit 1; }
