#!/usr/bin/env bash
# Library: torch 2.13.0 on an x86 CPU, seen 2026-11-28.
#
# Expected: where a CPU has no instructions for bfloat16 or float16, a product of such operands costs about what the
# float32 product costs, plus two conversions: the values fit float32, in which the sum is kept anyway.
# Happens: without AVX-512 (oneDNN held to AVX2 here, as on most desktop CPUs) products and convolutions of both types
# leave oneDNN and MKL for a scalar loop: 40 to 140 times the time of float32. Widening the operands, computing, and
# rounding the result gives the same sums, rounded once, at float32's speed.
#
# Seen (one thread; 64 channels of 32 x 32 by 3 x 3, and 512 x 512 by 512 x 512):
#   conv2d torch.bfloat16: over 20 times as long as float32: True; widened by hand: under 5 times: True
#   conv2d torch.float16: over 20 times as long as float32: True; widened by hand: under 5 times: True
#   matmul torch.bfloat16: over 20 times as long as float32: True; widened by hand: under 5 times: True
#   matmul torch.float16: over 20 times as long as float32: True; widened by hand: under 5 times: True
#   conv2d runs aten::_slow_conv2d_forward: True
#
# Here because of it: export/emulate/wide_products.py, without which a picture of 144 x 112 takes 13 s to decode.
#
# Needs no GPU; a CPU build of torch is enough.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import time

import torch
from torch.nn.functional import conv2d
from torch.profiler import profile

torch.set_num_threads(1)


def convolved(picture, filters):
    return conv2d(picture, filters, padding=1)


def least_seconds(compute, runs=5):
    compute()
    found = []
    for _ in range(runs):
        start = time.perf_counter()
        compute()
        found.append(time.perf_counter() - start)
    return min(found)


cases = {
    "conv2d": (convolved, torch.randn(1, 64, 32, 32), torch.randn(64, 64, 3, 3)),
    "matmul": (torch.matmul, torch.randn(512, 512), torch.randn(512, 512)),
}
for name, (product, x, y) in cases.items():
    plain = least_seconds(lambda: product(x, y))
    for dtype in (torch.bfloat16, torch.float16):
        a, b = x.to(dtype), y.to(dtype)
        narrow = least_seconds(lambda: product(a, b))
        widened = least_seconds(lambda: product(a.float(), b.float()).to(dtype))
        print(
            f"{name} {dtype}: over 20 times as long as float32: {narrow > 20 * plain}; "
            f"widened by hand: under 5 times: {widened < 5 * plain}"
        )
with profile() as seen:
    convolved(*(part.bfloat16() for part in cases["conv2d"][1:]))
print("conv2d runs aten::_slow_conv2d_forward:", any("_slow_conv2d_forward" in one.key for one in seen.key_averages()))
PYTHON
export ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2
TMPDIR="$folder" "$folder/venv/bin/python" "$folder/ask.py" 2> /dev/null | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
conv2d torch.bfloat16: over 20 times as long as float32: True; widened by hand: under 5 times: True
conv2d torch.float16: over 20 times as long as float32: True; widened by hand: under 5 times: True
matmul torch.bfloat16: over 20 times as long as float32: True; widened by hand: under 5 times: True
matmul torch.float16: over 20 times as long as float32: True; widened by hand: under 5 times: True
conv2d runs aten::_slow_conv2d_forward: True
TEXT
diff "$folder/expected" "$folder/seen" || { echo "this has changed"; exit 1; }
