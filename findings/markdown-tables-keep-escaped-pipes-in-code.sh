#!/usr/bin/env bash
# Library: Python-Markdown 3.11.3, its extension `tables`, seen 2026-11-28.
#
# Expected: in a table's cell `a\|b` in backticks shows a|b, as GitHub's specification of tables says: "It is possible to
# include a pipe in a cell's content by escaping it, including inside other inline spans"
# (https://github.github.com/gfm/#example-200).
# Happens: in backticks the backslash is shown. A bare | in backticks does not end the cell, which at GitHub it does. So no
# way of writing a pipe in code in a table reads right in both.
#
# Seen:
#   escaped: <code>a\|b</code>
#   bare: <code>a|b</code>
#
# Here because of it: docs/generate/command_line.py leaves pipes in code as they are, for a page that only the site has;
# tables of pages that are read in the repository, too, have none.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check markdown==3.11.3
cat > "$folder/ask.py" <<'PYTHON'
import re

import markdown

for name, cell in (("escaped", r"`a\|b`"), ("bare", "`a|b`")):
    html = markdown.markdown(f"| x | y |\n|---|---|\n| {cell} | z |\n", extensions=["tables"])
    print(f"{name}: {re.search('<code>.*?</code>', html)[0]}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
escaped: <code>a\|b</code>
bare: <code>a|b</code>
TEXT
diff "$folder/expected" "$folder/seen" || { echo "this has changed"; exit 1; }
