"""Holds what somebody types who comes from ComfyUI: its folder, single files, LoRAs."""

from __future__ import annotations

from .from_diffusers import BLACK
from .pictures import is_not_there, lies_there, other, same
from .steps import Chapter, Step

TRAINED = "TrainedComfyUI/models/diffusion_models/small-kontext.safetensors"
PICTURES = ("one.png", "three.png", "two.png")
"""The names of what lies in the folder `pictures`, beside what is no picture."""
LORA = "kontext-trt/examples/small_kontext/blueprint.safetensors"

FROM_COMFYUI = Chapter(
    title="From ComfyUI",
    intro="The same environment. `ComfyUI` is a folder as ComfyUI has it, of a tiny random model, so its "
    "pictures are patterns.",
    steps=(
        Step(
            says="Four parts, four files:",
            types="find ComfyUI -name '*.safetensors' | sort",
            shows=("ComfyUI/models/vae/ae.safetensors",),
        ),
        Step(
            says="ComfyUI has no tokenizers in files of their own. They are fetched from where BFL's code has "
            "them from; "
            "without a network:",
            types="HF_HUB_OFFLINE=1 kontext-trt export ComfyUI/models patterns --precision fp32",
            code=1,
            shows=("error:", "--tokenizers"),
            checks=(is_not_there("patterns"),),
        ),
        Step(
            says="A folder that has them will do:",
            types="kontext-trt export ComfyUI patterns --precision fp32 --tokenizers tokenizers",
            shows=("patterns: 6 graphs",),
        ),
        Step(
            says="It makes pictures as any other does:",
            types='kontext-trt edit patterns --image shapes.png --prompt "make it blue" --steps 4 --seed 0 '
            "--out pattern.png",
            shows=("pattern.png",),
            checks=(lies_there("pattern.png"),),
        ),
        Step(
            says="`TrainedComfyUI` has one file, the small trained model's transformer under ComfyUI's names. "
            "Alone it is not "
            "enough, and the error says what is missing:",
            types=f"kontext-trt export {TRAINED} shapes --precision fp32",
            code=1,
            shows=("error:", "--vae", "--clip", "--t5"),
            checks=(is_not_there("shapes"),),
        ),
        Step(
            says="The other parts may lie elsewhere, in another layout. `--lora-rank` makes room for LoRAs that "
            "come and go:",
            types=f"kontext-trt export {TRAINED} shapes --precision fp32 --vae small-kontext/vae --clip "
            "small-kontext/text_encoder --t5 small-kontext/text_encoder_2 --tokenizers small-kontext --lora-rank 4",
            shows=("shapes: 6 graphs",),
        ),
        Step(
            says="It is the same model, so it makes the same picture as [above](#from-diffusers):",
            types=f'kontext-trt edit shapes --image shapes.png --prompt "{BLACK}" --seed 0 --out same.png',
            checks=(same("same.png", "black.png"),),
        ),
        Step(
            says="What a LoRA file is:",
            types=f"cp {LORA} . && kontext-trt lora show blueprint.safetensors",
            shows=("blueprint.safetensors: diffusers", "LoRA"),
        ),
        Step(
            says="It is no checkpoint, and is not taken for one:",
            types="kontext-trt export blueprint.safetensors mistaken",
            code=1,
            shows=("error:", "is a LoRA, not a checkpoint"),
            checks=(is_not_there("mistaken"),),
        ),
        Step(
            says="Swapped in for one request:",
            types=f'kontext-trt edit shapes --image shapes.png --prompt "{BLACK}" --seed 0 --out swapped.png '
            "--lora blueprint.safetensors:0.8",
            checks=(other("swapped.png", "same.png"),),
        ),
        Step(
            says="A bundle that was exported without room refuses it,",
            types=f'kontext-trt edit bundle --image shapes.png --prompt "{BLACK}" --lora blueprint.safetensors:0.8',
            code=1,
            shows=("error:", "--lora-rank"),
        ),
        Step(
            says="but can have it fused, which costs nothing when pictures are made:",
            types="kontext-trt lora fuse bundle blueprint.safetensors:0.8 blueprints",
            shows=("blueprints",),
        ),
        Step(
            says="It is the same style:",
            types=f'kontext-trt edit blueprints --image shapes.png --prompt "{BLACK}" --seed 0 --out fused.png',
            checks=(same("fused.png", "swapped.png"),),
        ),
        Step(
            says="Many pictures, in a folder; one of them is none, and the others are edited all the same:",
            types='ls pictures && kontext-trt edit bundle --image pictures --prompt "make it night" --out night '
            "--steps 8 --seed 0",
            code=1,
            shows=("of 4 pictures 3 edited", "broken.png was not edited", "1 failed"),
            checks=tuple(other(f"night/{name}", f"pictures/{name}") for name in PICTURES),
        ),
        Step(
            says="The same command goes on where a run ended. What has its answer is not made again:",
            types='rm pictures/broken.png && kontext-trt edit bundle --image pictures --prompt "make it night" '
            "--out night --steps 8 --seed 0",
            shows=("of 3 pictures 0 edited, 3 skipped",),
        ),
    ),
)
"""The second of the three kinds of newcomers."""
