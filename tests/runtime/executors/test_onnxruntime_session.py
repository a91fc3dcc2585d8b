"""ONNX Runtime is loaded so that it sends nothing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from command_line import LINKS

CODE = (
    "import os\n"
    "from kontext_trt.runtime.executors.onnxruntime_session import import_onnxruntime\n"
    "import_onnxruntime()\n"
    "print(os.environ['ORT_DISABLE_TELEMETRY'])"
)


@pytest.mark.parametrize(("said", "found"), [(None, "1"), ("1", "1"), ("", "")])
def test_it_is_told_to_send_nothing_unless_the_environment_says_something(said: str | None, found: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"PYTHONPATH": LINKS} | ({} if said is None else {"ORT_DISABLE_TELEMETRY": said})
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip("\n") == found
