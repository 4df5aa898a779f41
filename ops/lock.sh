#!/usr/bin/env bash
# Regenerate requirements.lock from pyproject.toml: hashes for every platform, no registry host. Called by `make lock`.
set -euo pipefail
cd "$(dirname "$0")/.."

PATH="$PATH:$PWD/.venv/bin"
command -v uv >/dev/null || {
  echo "lock: uv is needed (only here): pip install uv" >&2
  exit 1
}
uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
  --no-annotate --all-extras "$@" pyproject.toml -o requirements.lock
