"""Holds what somebody types who comes from diffusers: a folder of its layout, commands, and Python."""

from __future__ import annotations

from .pictures import coloured, is_not_there, lies_there, other, same
from .steps import Chapter, Step

BLACK = "turn the orange hexagon black"
AFTER = "kontext-trt/docs/small-kontext/after.png"
PROGRAM = """from kontext_trt import Kontext, Request, Sampling

with Kontext.open("bundle") as kontext:
    request = Request(prompt="remove the orange hexagon", image="shapes.png", sampling=Sampling(seed=0))
    result = kontext.run(request)
    result.save("removed.png")
    print(result.size, result.reference.describe())
    again = kontext.edit("shapes.png", "remove the orange hexagon", seed=0)
    print("the same picture:", again.image.tobytes() == result.image.tobytes())
"""
BLUE, RED = (40, 80, 210), (215, 40, 40)

FROM_DIFFUSERS = Chapter(
    title="From diffusers",
    intro="The checkout is in `kontext-trt`, a checkpoint in diffusers' layout in `small-kontext`, and the "
    "picture to edit is "
    "`shapes.png`. First an environment, and what exports and runs on a CPU. torch comes first, so that pip "
    "takes the build "
    "that it finds; on a machine with a GPU it is `'.[export,gpu]'`.",
    steps=(
        Step(
            says="A fresh environment:",
            types="python3 -m venv venv && source venv/bin/activate",
            checks=(lies_there("venv/bin/pip"),),
        ),
        Step(says="What exports and runs on a CPU:", types="pip install torch==2.13.0", quiet=True),
        Step(
            says="and, in the checkout,",
            types="cd kontext-trt && pip install '.[export,cpu]' && cd ..",
            quiet=True,
            checks=(lies_there("venv/bin/kontext-trt"),),
        ),
        Step(
            says="`doctor` says what this machine can do, and what would have to be installed for the rest:",
            types="kontext-trt doctor",
            shows=("no GPU:", "yes run on the CPU: onnxruntime", "yes export checkpoints", "pip install"),
        ),
        Step(
            says="An edit needs a bundle, which `export` makes. A checkpoint is none:",
            types=f'kontext-trt edit small-kontext --image shapes.png --prompt "{BLACK}"',
            code=1,
            shows=("error:", "small-kontext"),
            checks=(is_not_there("edited.png"),),
        ),
        Step(
            says="The weights are bf16, as those of the real model are, and an export keeps them so. It warns "
            "at once that "
            "this machine will not run what comes of it:",
            types="kontext-trt export small-kontext as-stored",
            shows=("ONNX Runtime has no bf16 kernels on the CPU", "--precision fp32", "6 graphs over"),
        ),
        Step(
            says="It does not, and says why:",
            types=f'kontext-trt edit as-stored --image shapes.png --prompt "{BLACK}"',
            code=1,
            shows=("error:", "bf16", "export the checkpoint with --precision fp32"),
            checks=(is_not_there("edited.png"),),
        ),
        Step(
            says="So, for this machine:",
            types="kontext-trt export small-kontext bundle --precision fp32",
            shows=("bundle: 6 graphs", "edit a picture with: kontext-trt edit bundle"),
        ),
        Step(
            says="What is in it:",
            types="kontext-trt inspect bundle",
            shows=("denoiser", "vae_decoder", "2 double and 8 single blocks", "128x128"),
        ),
        Step(
            says="The first edit. The hexagon becomes black, and nothing else changes:",
            types=f'kontext-trt edit bundle --image shapes.png --prompt "{BLACK}" --out black.png --seed 0',
            shows=("reference 128x128 -> 128x128", "black.png 128x128 seed 0"),
            checks=(same("black.png", AFTER),),
        ),
        Step(
            says="What is typed wrongly is said, and nothing is computed: an option,",
            types=f'kontext-trt edit bundle --imgae shapes.png --prompt "{BLACK}"',
            code=2,
            shows=("No such option", "--image"),
            mistyped=True,
        ),
        Step(
            says="a picture that is not there,",
            types=f'kontext-trt edit bundle --image shape.png --prompt "{BLACK}"',
            code=1,
            shows=("error:", "shape.png"),
        ),
        Step(
            says="one that is elsewhere,",
            types=f'kontext-trt edit bundle --image https://example.com/shapes.png --prompt "{BLACK}"',
            code=1,
            shows=("error:", "is an address", "nothing is fetched"),
        ),
        Step(
            says="the picture's own name for the answer,",
            types=f'kontext-trt edit bundle --image shapes.png --prompt "{BLACK}" --out shapes.png',
            code=1,
            shows=("error:", "shapes.png", "--overwrite"),
            checks=(same("shapes.png", "kontext-trt/docs/small-kontext/before.png"),),
        ),
        Step(
            says="a size that the model has no tokens for,",
            types=f'kontext-trt edit bundle --image shapes.png --prompt "{BLACK}" --size 100x100',
            code=1,
            shows=("error:", "100x100", "16"),
        ),
        Step(
            says="or a bundle that is not there.",
            types='kontext-trt generate bundel --prompt "a red circle"',
            code=1,
            shows=("error:", "bundel"),
            checks=(is_not_there("generated.png"),),
        ),
        Step(
            says="A picture from words alone, of the same bundle:",
            types='kontext-trt generate bundle --prompt "a large red circle in the middle on a plain blue '
            'background" '
            "--seed 0",
            shows=("generated.png 128x128 seed 0",),
            checks=(coloured("generated.png", RED, BLUE),),
        ),
        Step(
            says="The same from Python, in which a seed gives a picture again, bit for bit. In `remove.py`:",
            types="python remove.py",
            file=("remove.py", PROGRAM),
            shows=("(128, 128) 128x128 -> 128x128", "the same picture: True"),
            checks=(other("removed.png", "shapes.png"), other("removed.png", "black.png")),
        ),
        Step(
            says="How well the model does what it is told is measured by requests whose answers are known; here "
            "by two:",
            types="kontext-trt evaluate bundle --count 2",
            shows=("all 2 100 %", "editbench/editbench.png"),
            checks=(lies_there("editbench/editbench.json"),),
        ),
        Step(
            says="A real checkpoint is named as on the Hugging Face hub. Without a network, and without a copy "
            "in the hub's "
            "cache:",
            types="HF_HUB_OFFLINE=1 kontext-trt export black-forest-labs/FLUX.1-Kontext-dev kontext",
            code=1,
            shows=("error:", "black-forest-labs/FLUX.1-Kontext-dev"),
            checks=(is_not_there("kontext"),),
        ),
    ),
)
"""The first of the three kinds of newcomers."""
