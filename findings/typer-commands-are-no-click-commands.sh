#!/usr/bin/env bash
# Library: typer 0.29.2 (with click 8.5.1 installed beside it), seen 2026-11-28.
#
# Expected: `typer.main.get_command(app)` gives a click.Command, as it did while typer was built on click, so that click's
# attributes describe its parameters: `type`, `human_readable_name`, `get_usage_pieces`.
# Happens: typer carries a click of its own. The command is no click.Command, and its arguments have neither `type` nor
# `human_readable_name`. What both have, and what therefore works with either, is `get_help_record(context)` and
# `collect_usage_pieces(context)`.
#
# Seen:
#   click.Command: False
#   argument has type: False, human_readable_name: False
#   help record: ('name <str>', 'Who.  [required]')
#
# Here because of it: docs/generate/command_line.py asks for help records, and reads no parameter's type.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check typer==0.29.2 click==8.5.1
cat > "$folder/ask.py" <<'PYTHON'
from typing import Annotated

import click
import typer

app = typer.Typer()


@app.command()
def greet(name: Annotated[str, typer.Argument(help="Who.")]) -> None:
    """Greet."""


command = typer.main.get_command(app)
argument = command.params[0]
print("click.Command:", isinstance(command, click.Command))
print(f"argument has type: {hasattr(argument, 'type')}, human_readable_name: {hasattr(argument, 'human_readable_name')}")
print("help record:", argument.get_help_record(typer.Context(command, info_name="greet")))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
click.Command: False
argument has type: False, human_readable_name: False
help record: ('name <str>', 'Who.  [required]')
TEXT
diff "$folder/expected" "$folder/seen" || { echo "this has changed"; exit 1; }
