#!/usr/bin/env bash
# Create .venv from the hash lock and install Mingluo into it, editable. Called by `make setup`.
# An unchanged run only compares a stamp. PYTHON chooses the interpreter (3.11 or newer).
set -euo pipefail
cd "$(dirname "$0")/.."

python="${PYTHON:-python3}"
stamp=.venv/.setup-stamp
want="$(sha256sum requirements.lock pyproject.toml ops/setup.sh | sha256sum | cut -d' ' -f1)"
if [[ -x .venv/bin/mingluo && -f $stamp && $(<"$stamp") == "$want" ]]; then
  exit 0
fi

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "setup: $python is missing or older than 3.11; install it or set PYTHON=/path/to/python3.11" >&2
  exit 1
}

with_uv() {
  command -v uv >/dev/null || return 1
  uv pip install --quiet --python .venv/bin/python --require-hashes -r requirements.lock &&
    uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e .
}

with_pip() {
  local pip=(.venv/bin/python -m pip --disable-pip-version-check install --quiet)
  "${pip[@]}" --require-hashes -r requirements.lock
  "${pip[@]}" --no-deps --no-build-isolation -e .
}

rm -f "$stamp"
# A venv that no longer starts (its interpreter was upgraded away) is made anew.
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  echo "setup: creating .venv"
  "$python" -m venv --clear .venv || {
    echo "setup: python cannot create a venv; on Debian: apt-get install python3-venv" >&2
    exit 1
  }
fi
echo "setup: installing requirements.lock (about a minute with pip, seconds with uv)"
# uv reads no pip.conf, so a site's own index may be known to pip only.
with_uv || with_pip
echo "$want" >"$stamp"
