#!/usr/bin/env bash
# Library: safetensors 0.8.0 with torch 2.13.0, seen 2026-11-28.
#
# Expected: get_slice, by which loaders read a part of a tensor, gives what slicing the whole tensor gives, and get_shape
# the shape of that tensor, for every type that the library writes.
# Happens: torch's float4_e2m1fn_x2 has two values in an item, and its shape counts items; the header counts values, so
# that the last dimension is twice the tensor's. get_tensor and load_file halve it; get_slice does not, says the header's
# shape, and whatever is cut, be it everything or whole rows, ends in a RuntimeError. The same bytes as uint8 can be cut.
#
# Seen:
#   U8: tensor (4, 8), slice's shape (4, 8)
#   U8, rows 0 to 4: as of the whole tensor: True
#   U8, rows 1 to 3: as of the whole tensor: True
#   F4: tensor (4, 8), slice's shape (4, 16)
#   F4, rows 0 to 4: RuntimeError: shape '[4, 16]' is invalid for input of size 32
#   F4, rows 1 to 3: RuntimeError: shape '[4, 16]' is invalid for input of size 32
#
# Here because of it: parts of tensors are read through engine/bundle/tensor_file.py, which reads headers by itself.
#
# Needs no GPU; a CPU build of torch is enough.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 safetensors==0.8.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import sys

import torch
from safetensors import safe_open
from safetensors.torch import save_file

path = sys.argv[1]
data = torch.arange(32, dtype=torch.uint8).reshape(4, 8)
for kind in (torch.uint8, torch.float4_e2m1fn_x2):
    save_file({"x": data.view(kind)}, path)
    with safe_open(path, framework="pt") as file:
        whole, part = file.get_tensor("x"), file.get_slice("x")
        print(f"{part.get_dtype()}: tensor {tuple(whole.shape)}, slice's shape {tuple(part.get_shape())}")
        for words, rows in (("rows 0 to 4", slice(0, 4)), ("rows 1 to 3", slice(1, 3))):
            try:
                same = torch.equal(part[rows].view(torch.uint8), whole[rows].view(torch.uint8))
                print(f"{part.get_dtype()}, {words}: as of the whole tensor: {same}")
            except RuntimeError as error:
                print(f"{part.get_dtype()}, {words}: RuntimeError: {error}")
PYTHON
TMPDIR="$folder" "$folder/venv/bin/python" "$folder/ask.py" "$folder/x.safetensors" | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
U8: tensor (4, 8), slice's shape (4, 8)
U8, rows 0 to 4: as of the whole tensor: True
U8, rows 1 to 3: as of the whole tensor: True
F4: tensor (4, 8), slice's shape (4, 16)
F4, rows 0 to 4: RuntimeError: shape '[4, 16]' is invalid for input of size 32
F4, rows 1 to 3: RuntimeError: shape '[4, 16]' is invalid for input of size 32
TEXT
diff "$folder/expected" "$folder/seen" || { echo "this has changed"; exit 1; }
