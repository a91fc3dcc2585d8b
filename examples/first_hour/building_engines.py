"""Holds what somebody types who builds engines: plans for a GPU that is not here, and a quantized bundle."""

from __future__ import annotations

from .from_diffusers import BLACK
from .pictures import is_not_there, lies_there
from .steps import Chapter, Step

BUILDING_ENGINES = Chapter(
    title="Building engines",
    intro="TensorRT-RTX's compiler needs no GPU, so plans for another machine's are built here. `as-stored` is "
    "the bf16 bundle "
    "of [above](#from-diffusers).",
    steps=(
        Step(
            says="The compiler, and what calibrates and quantizes, come into the same environment:",
            types="cd kontext-trt && pip install '.[rtx,quantize,report]' && cd ..",
            quiet=True,
        ),
        Step(
            says="What it can do now, and what not:",
            types="kontext-trt doctor",
            shows=("yes build TensorRT-RTX plans", "yes calibrate and quantize", "no run TensorRT-RTX plans"),
            only=r"TensorRT|\[(tensorrt|rtx)\]|quantize",
        ),
        Step(
            says="Without a name, plans are for the GPU of this machine, and there is none:",
            types="kontext-trt build as-stored",
            code=1,
            shows=("error:", "no GPU was found on this machine", "--gpu"),
        ),
        Step(
            says="Not every name is known,",
            types='kontext-trt build as-stored --gpu "gtx 1080"',
            code=1,
            shows=("error:", "gtx 1080", "compute capability"),
        ),
        Step(
            says="and not every GPU has the type:",
            types='kontext-trt build as-stored --gpu "rtx 2080"',
            code=1,
            shows=("error:", "bf16", "--precision fp16"),
        ),
        Step(
            says="For one that has:",
            types='kontext-trt build as-stored --gpu "rtx 5090"',
            shows=("denoiser for sm_120", "10 of 10 attention fused", "vae_decoder for sm_120"),
        ),
        Step(
            says="What is there already is kept:",
            types="kontext-trt build as-stored --gpu 5090 --component denoiser",
            shows=("already built",),
        ),
        Step(
            says="What plans there are, in part:",
            types="kontext-trt plans list as-stored",
            shows=("denoiser bf16 for sm_120",),
            only="^denoiser|^ .*10 of 10",
        ),
        Step(says="Every byte of them:", types="kontext-trt plans verify as-stored", shows=("6 plans, all sound",)),
        Step(
            says="They wait for their GPU; here nobody can run them:",
            types=f'kontext-trt edit as-stored --image shapes.png --prompt "{BLACK}"',
            code=1,
            shows=("error:",),
        ),
        Step(
            says="A benchmark cannot measure it, either:",
            types="kontext-trt bench as-stored",
            code=1,
            shows=("error:",),
        ),
        Step(
            says="To quantize, activations are looked at first, on pictures and instructions that are like "
            "those to come. "
            "`samples` has two:",
            types="ls samples && cat samples/samples.csv",
        ),
        Step(
            says="Calibrating, with fewer steps than usual:",
            types="kontext-trt calibrate as-stored samples --out ranges.json --steps 2",
            shows=("ranges.json: 114 activations over 2 samples",),
            checks=(lies_there("ranges.json"),),
        ),
        Step(
            says="From what was seen, a bundle in FP8:",
            types="kontext-trt quantize as-stored fp8 --recipe fp8 --calibration ranges.json",
            shows=("products: 64 in fp8", "kontext-trt compare"),
        ),
        Step(
            says="What it costs, computed by torch, which rounds as FP8 does:",
            types=f'kontext-trt compare as-stored fp8 --image shapes.png --prompt "{BLACK}" --steps 2 --no-layers',
            shows=("PSNR dB", "fp8/reports/against-"),
            only="PSNR|128x128|reports",
        ),
        Step(
            says="A quantized bundle is compiled in the same way, and a GPU without the type is refused:",
            types='kontext-trt build fp8 --gpu "rtx 3090"',
            code=1,
            shows=("error:", "fp8", "sm_89"),
            checks=(is_not_there("fp8/plans"),),
        ),
        Step(
            says="For one that has it:",
            types='kontext-trt build fp8 --gpu "rtx 5090" --component denoiser',
            shows=("fp8",),
        ),
    ),
)
"""The third of the three kinds of newcomers."""
