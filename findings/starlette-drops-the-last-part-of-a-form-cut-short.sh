#!/usr/bin/env bash
# Library: starlette 1.10.0 with python-multipart 0.0.34, seen 2026-11-29.
#
# Expected: a multipart form whose body ends before its last boundary is an error, as a body shorter than its
# Content-Length is; a field of which half has come is not a field.
# Happens: the form parses without an error, and the part that was under way is gone. An edit whose connection was cut by
# a proxy while the mask was sent arrives as an edit without a mask, of the whole picture.
#
# Seen:
#   whole: ['prompt', 'mask']
#   cut within the last part: ['prompt']
#   cut within the last boundary: ['prompt']
#
# Here because of it: serving/bodies.py looks for the closing boundary itself, and refuses a form without it.
#
# Needs no GPU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check starlette==1.10.0 python-multipart==0.0.34
cat > "$folder/ask.py" <<'PYTHON'
import asyncio

from starlette.datastructures import Headers
from starlette.formparsers import MultiPartParser

BODY = (
    b'--edge\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nmake it blue\r\n'
    b'--edge\r\nContent-Disposition: form-data; name="mask"; filename="mask.png"\r\n\r\nPIXELS\r\n--edge--\r\n'
)


async def names(body):
    async def chunks():
        yield body

    headers = Headers({"content-type": "multipart/form-data; boundary=edge"})
    form = await MultiPartParser(headers, chunks()).parse()
    return [name for name, _ in form.multi_items()]


for words, missing in (("whole", 0), ("cut within the last part", 14), ("cut within the last boundary", 6)):
    print(f"{words}: {asyncio.run(names(BODY[: len(BODY) - missing]))}")
PYTHON
TMPDIR="$folder" "$folder/venv/bin/python" -W ignore "$folder/ask.py" | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
whole: ['prompt', 'mask']
cut within the last part: ['prompt']
cut within the last boundary: ['prompt']
TEXT
diff "$folder/expected" "$folder/seen" || { echo "this has changed"; exit 1; }
