#!/usr/bin/env bash
# Regenerate requirements.lock from pyproject.toml, and those of the bench's peers from their requirements.in: hashes for
# every platform, no registry host. Called by `make lock`.
set -euo pipefail
cd "$(dirname "$0")/.."

PATH="$PATH:$PWD/.venv/bin"
command -v uv >/dev/null || {
  echo "lock: uv is needed (only here): pip install uv" >&2
  exit 1
}
compile=(uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header
  --no-annotate "$@")
"${compile[@]}" --all-extras pyproject.toml -o requirements.lock
for peer in ops/bench/*/requirements.in; do
  "${compile[@]}" --python-version 3.11 "$peer" -o "${peer%.in}.lock"
done
