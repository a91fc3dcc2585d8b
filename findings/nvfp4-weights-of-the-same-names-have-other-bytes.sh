#!/usr/bin/env bash
# Library: comfy-kitchen 0.2.40 and nvidia-modelopt 0.47.0, with torch 2.13.0 and transformers 5.23.0, seen 2026-11-28.
#
# Expected: NVFP4 is one format. Two files whose weights are stored under the same three names (weight, weight_scale,
# weight_scale_2), in the same types and shapes, are read in the same way; a layout that differs would have a name, a type
# or a shape of its own, or be declared.
# Happens: comfy-kitchen has the first of two codes in the high half of their byte, and the scales of blocks in cuBLAS's
# tiles of 128 rows by 4 blocks. ModelOpt's export has it in the low half, and the scales row by row. Where the rows are a
# multiple of 128 and the columns of 64, nothing in the tensors differs but their bytes, and comfy-kitchen does not look:
# ModelOpt's weight read by it is noise, of the right size and without an error.
#
# Seen:
#   weight: torch.uint8 (128, 128), of ModelOpt torch.uint8 (128, 128)
#   weight_scale: torch.float8_e4m3fn (128, 16), of ModelOpt torch.float8_e4m3fn (128, 16)
#   weight_scale_2: torch.float32 (), of ModelOpt torch.float32 ()
#   comfy-kitchen reads its own: relative error 0.10
#   comfy-kitchen reads ModelOpt's: relative error 1.43
#   with its halves of bytes exchanged: relative error 0.30
#   with its scales in tiles as well: relative error 0.10
#
# Here because of it: export/checkpoint/nvfp4_evidence.py measures in which layout a file's numbers make sense, and no
# marker in a file is believed.
#
# Needs no GPU; a CPU build of torch is enough. The network is random.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 comfy-kitchen==0.2.40 nvidia-modelopt==0.47.0 \
    transformers==5.23.0 safetensors==0.8.0 requests==2.34.2 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import contextlib
import io
import tempfile
from pathlib import Path

import comfy_kitchen
import modelopt.torch.quantization as mtq
import torch
from comfy_kitchen.float_utils import to_blocked
from comfy_kitchen.tensor import TensorCoreNVFP4Layout
from modelopt.torch.export import export_hf_checkpoint
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
sizes = {"vocab_size": 128, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1}
config = LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2, architectures=["LlamaForCausalLM"])
model = LlamaForCausalLM(config).to(torch.bfloat16).eval()
layer = "model.layers.0.mlp.down_proj."
weight = model.state_dict()[layer + "weight"].float()  # (128, 256)

codes, params = TensorCoreNVFP4Layout.quantize(weight)
comfy = {"weight" + end: value for end, value in TensorCoreNVFP4Layout.state_dict_tensors(codes, params).items()}
with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
    mtq.quantize(model, mtq.NVFP4_DEFAULT_CFG, lambda network: network(torch.arange(16)[None]))
    export_hf_checkpoint(model, export_dir=folder)
    file = load_file(Path(folder) / "model.safetensors")
modelopt = {name: file[layer + name] for name in comfy}


def error(tensors):
    """The relative error of the weight as comfy-kitchen reads it."""
    read = comfy_kitchen.dequantize_nvfp4(
        tensors["weight"], tensors["weight_scale_2"], tensors["weight_scale"], torch.float32
    )
    return f"relative error {float((read - weight).norm() / weight.norm()):.2f}"


for name, one in comfy.items():
    other = modelopt[name]
    print(f"{name}: {one.dtype} {tuple(one.shape)}, of ModelOpt {other.dtype} {tuple(other.shape)}")
print("comfy-kitchen reads its own:", error(comfy))
print("comfy-kitchen reads ModelOpt's:", error(modelopt))
modelopt["weight"] = (modelopt["weight"] >> 4) | (modelopt["weight"] << 4)
print("with its halves of bytes exchanged:", error(modelopt))
modelopt["weight_scale"] = to_blocked(modelopt["weight_scale"], flatten=False)
print("with its scales in tiles as well:", error(modelopt))
PYTHON
TMPDIR="$folder" "$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
weight: torch.uint8 (128, 128), of ModelOpt torch.uint8 (128, 128)
weight_scale: torch.float8_e4m3fn (128, 16), of ModelOpt torch.float8_e4m3fn (128, 16)
weight_scale_2: torch.float32 (), of ModelOpt torch.float32 ()
comfy-kitchen reads its own: relative error 0.10
comfy-kitchen reads ModelOpt's: relative error 1.43
with its halves of bytes exchanged: relative error 0.30
with its scales in tiles as well: relative error 0.10
TEXT
diff "$folder/expected" "$folder/seen" || { echo "this has changed"; exit 1; }
