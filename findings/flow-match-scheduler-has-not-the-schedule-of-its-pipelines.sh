#!/usr/bin/env bash
# Library: diffusers 0.42.1 with torch 2.13.0, seen 2026-11-28.
#
# Expected: FlowMatchEulerDiscreteScheduler, told the number of steps and the shift mu, makes the schedule that
# FluxPipeline uses for as many steps: the pipeline has the same two numbers, and other schedulers are used by
# set_timesteps(steps).
# Happens: the scheduler counts down to its own last level, 1/1000 before the shift, as if that were a step of a few; the
# pipelines count down to 1/steps and pass that as sigmas. Of 4 steps the scheduler's last begins at 0.003 instead of
# 0.51: it does nothing, and three make the picture. With a fixed shift its last level is shifted twice, once when it is
# made and once by set_timesteps, so that set_timesteps(1000) does not give the 1000 levels that the scheduler had before.
#
# Seen:
#   4 steps by the scheduler: 1.0000 0.8635 0.6130 0.0032 0.0000
#   4 steps by the pipelines' sigmas: 1.0000 0.9045 0.7595 0.5128 0.0000
#   a fixed shift, the last levels of 1000: 0.0089 0.0060 0.0030
#   a fixed shift, after set_timesteps(1000): 0.0148 0.0119 0.0089
#
# Here because of it: noise_levels in runtime/flow/schedule.py counts down to 1/steps, and
# tests/runtime/flow/test_schedule.py gives the scheduler the sigmas, as pipelines do, to compare with it.
#
# Needs no GPU; a CPU build of torch is enough.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import numpy as np
from diffusers import FlowMatchEulerDiscreteScheduler

def show(values):
    return " ".join(f"{float(value):.4f}" for value in values)


flux = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, shift=3.0)
mu = 1.15  # of 1024 x 1024 pixels
flux.set_timesteps(4, mu=mu)
print("4 steps by the scheduler:", show(flux.sigmas))
flux.set_timesteps(sigmas=np.linspace(1.0, 1 / 4, 4), mu=mu)
print("4 steps by the pipelines' sigmas:", show(flux.sigmas))

fixed = FlowMatchEulerDiscreteScheduler(shift=3.0)
print("a fixed shift, the last levels of 1000:", show(fixed.sigmas[-3:]))
fixed.set_timesteps(1000)
print("a fixed shift, after set_timesteps(1000):", show(fixed.sigmas[-4:-1]))
PYTHON
TMPDIR="$folder" "$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
4 steps by the scheduler: 1.0000 0.8635 0.6130 0.0032 0.0000
4 steps by the pipelines' sigmas: 1.0000 0.9045 0.7595 0.5128 0.0000
a fixed shift, the last levels of 1000: 0.0089 0.0060 0.0030
a fixed shift, after set_timesteps(1000): 0.0148 0.0119 0.0089
TEXT
diff "$folder/expected" "$folder/seen" || { echo "this has changed"; exit 1; }
