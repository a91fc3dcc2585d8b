#!/usr/bin/env bash
# Library: lycoris-lora 4.1.3 with torch 2.13.0, seen 2026-11-29.
#
# Expected: merge_to(1.0) adds to a weight what the module computes beside it while it is applied, so that a merged layer
# and an applied one give the same; so it is for LoCon, the library's plain LoRA.
# Happens: the weights that LoHa and LoKr merge have alpha / rank in them twice. With alpha a quarter of the rank the
# merged change is a quarter of the applied one; only where alpha is the rank does it not show.
#
# Seen (norm of the merged change over that of the applied one, alpha / rank = 0.25):
#   LoCon 1.00
#   LoHa 0.25
#   LoKr 0.25
#
# Here because of it: tests take what a LyCORIS module computes while applied as the truth of its file, never merge_to
# (tests/whole/test_lora_libraries.py), and alpha / rank counts once in engine/lora/.
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
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from torch import nn

for name, kind in (("LoCon", LoConModule), ("LoHa", LohaModule), ("LoKr", LokrModule)):
    torch.manual_seed(0)
    layer = nn.Linear(256, 256, bias=False)
    before = layer.weight.detach().clone()
    module = kind("layer", layer, 1.0, lora_dim=2, alpha=0.5)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    with torch.no_grad():
        module.apply_to()
        applied = layer(torch.eye(256)).T - before
        module.restore()
        module.merge_to(1.0)
        merged = layer.weight - before
    print(f"{name} {merged.norm() / applied.norm():.2f}")
PYTHON
TMPDIR="$folder" "$folder/venv/bin/python" "$folder/ask.py" 2> /dev/null | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
LoCon 1.00
LoHa 0.25
LoKr 0.25
TEXT
diff "$folder/expected" "$folder/seen" || { echo "this has changed"; exit 1; }
