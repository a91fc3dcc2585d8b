#!/usr/bin/env bash
# Library: ray 2.60.0, seen 2026-11-29.
#
# Expected: what actors print is on the driver's output line by line, as ray.init(log_to_driver=True), the default, has it;
# at most lines that are equal are put together.
# Happens: lines of several processes within five seconds count as equal when they differ only in words with digits in
# them. An access log's status is such a word: of the second replica's errors the last is printed, five seconds
# later, with "[repeated 2x across cluster]", and the others are nowhere. RAY_DEDUP_LOGS=0, set before ray is imported,
# prints all.
#
# Seen (the statuses on the driver's output, of 200 and 404 from one actor, then 500 and 503 from another):
#   usual: 200 404 503
#   RAY_DEDUP_LOGS=0: 200 404 500 503
#
# Here because of it: nothing yet; a deployment of several replicas has to set it for its access log.
#
# Needs no GPU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ray==2.60.0
cat > "$folder/ask.py" <<'PYTHON'
import time

import ray

ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100_000_000, logging_level="error")


@ray.remote
class Replica:
    def answer(self, statuses):
        for status in statuses:
            print(f"POST /v1/images/edits {status}", flush=True)


first, second = Replica.remote(), Replica.remote()
ray.get([one.answer.remote([]) for one in (first, second)])
ray.get(first.answer.remote([200, 404]))
time.sleep(1.5)
ray.get(second.answer.remote([500, 503]))
time.sleep(7)
PYTHON
for words in usual RAY_DEDUP_LOGS=0; do
  setting=RAY_USAGE_STATS_ENABLED=0
  [ "$words" = usual ] || setting=$words
  found=$(env RAY_USAGE_STATS_ENABLED=0 "$setting" "$folder/venv/bin/python" "$folder/ask.py" 2> /dev/null \
    | grep -o 'edits [0-9]*' | cut -d' ' -f2 | sort -u | tr '\n' ' ')
  echo "$words: ${found% }"
done | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
usual: 200 404 503
RAY_DEDUP_LOGS=0: 200 404 500 503
TEXT
diff "$folder/expected" "$folder/seen" || { echo "this has changed"; exit 1; }
