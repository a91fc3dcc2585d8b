#!/usr/bin/env bash
# Library: diffusers 0.42.1 with torch 2.13.0, seen 2026-11-28.
#
# Expected: a scheduler with shift_terminal, which Qwen-Image's and LTX-Video's have, makes a schedule of any number of
# steps, or refuses a number that it has none for. One step is what distilled models and smoke tests take; without
# shift_terminal it is the step from 1 to 0.
# Happens: the levels are stretched so that the last is shift_terminal. Of one, which is 1, that is 0 / 0: the level is
# NaN, and so is every value of what the step returns. NumPy warns of a division, the scheduler of nothing. Two steps go
# from 1 to 0.02 and then to 0, so that the second does nearly nothing.
#
# Seen:
#   shift_terminal None, 1 step(s): 1.00 0.00, result finite: True
#   shift_terminal None, 2 step(s): 1.00 0.67 0.00, result finite: True
#   shift_terminal None, 4 step(s): 1.00 0.86 0.67 0.40 0.00, result finite: True
#   shift_terminal 0.02, 1 step(s): nan 0.00, result finite: False
#   shift_terminal 0.02, 2 step(s): 1.00 0.02 0.00, result finite: True
#   shift_terminal 0.02, 4 step(s): 1.00 0.77 0.46 0.02 0.00, result finite: True
#
# Here because of it: noise_levels in runtime/flow/schedule.py has no terminal level, and one step is tested; what is NaN
# after a stage is refused by runtime/flow/guards.py.
#
# Needs no GPU; a CPU build of torch is enough.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

def show(values):
    return " ".join(f"{float(value):.2f}" for value in values)


for terminal in (None, 0.02):
    for steps in (1, 2, 4):
        scheduler = FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, shift=1.0, shift_terminal=terminal
        )
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=0.7)
        scheduler.set_begin_index(0)  # as QwenImagePipeline does, with these sigmas
        sample = torch.ones(4)
        for time in scheduler.timesteps:
            sample = scheduler.step(torch.ones(4), time, sample).prev_sample
        print(f"shift_terminal {terminal}, {steps} step(s): {show(scheduler.sigmas)}, result finite: {bool(sample.isfinite().all())}")
PYTHON
TMPDIR="$folder" "$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
shift_terminal None, 1 step(s): 1.00 0.00, result finite: True
shift_terminal None, 2 step(s): 1.00 0.67 0.00, result finite: True
shift_terminal None, 4 step(s): 1.00 0.86 0.67 0.40 0.00, result finite: True
shift_terminal 0.02, 1 step(s): nan 0.00, result finite: False
shift_terminal 0.02, 2 step(s): 1.00 0.02 0.00, result finite: True
shift_terminal 0.02, 4 step(s): 1.00 0.77 0.46 0.02 0.00, result finite: True
TEXT
diff "$folder/expected" "$folder/seen" || { echo "this has changed"; exit 1; }
