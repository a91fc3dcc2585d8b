#!/usr/bin/env bash
# Library: lycoris-lora 4.1.3 with torch 2.13.0, seen 2026-11-29.
#
# Expected: a multiplier of 0 leaves the base model as it is, with weight decomposition (DoRA) as without.
# Happens: with it, a multiplier of 0 leaves the direction's change out of the scaling and adds it whole: the layer
# computes the weight plus the undecomposed change. Turning such a LoRA down to nothing turns it on.
#
# Seen (norm of what the layer's weight differs by, over that of the undecomposed change, at multiplier 0):
#   without weight decomposition: 0.00
#   with weight decomposition: 1.00
#
# Here because of it: engine/lora/apply.py blends files with dora_scale from the weight (scale 0) to what the file makes
# of it (scale 1), as ComfyUI does, and docs/how-to/lora.md says what a scale means there.
#
# Needs no GPU; a CPU build of torch is enough.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 lycoris-lora==4.1.3 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import torch
from lycoris.modules.locon import LoConModule
from torch import nn

for words, decomposed in (("without", False), ("with", True)):
    torch.manual_seed(0)
    layer = nn.Linear(16, 16, bias=False)
    before = layer.weight.detach().clone()
    module = LoConModule("layer", layer, 0.0, lora_dim=2, alpha=2, weight_decompose=decomposed)
    with torch.no_grad():
        nn.init.normal_(module.lora_down.weight)
        nn.init.normal_(module.lora_up.weight)
        change = module.lora_up.weight @ module.lora_down.weight
        module.apply_to()
        differs = layer(torch.eye(16)).T - before
    print(f"{words} weight decomposition: {differs.norm() / change.norm():.2f}")
PYTHON
TMPDIR="$folder" "$folder/venv/bin/python" "$folder/ask.py" 2> /dev/null | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
without weight decomposition: 0.00
with weight decomposition: 1.00
TEXT
diff "$folder/expected" "$folder/seen" || { echo "this has changed"; exit 1; }
