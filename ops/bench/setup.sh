#!/usr/bin/env bash
# Create the virtual environments of the peers that `mingluo bench fanout` compares with, each from its own hash lock.
# Called by that bench, for the peers it lacks. Arguments: names of folders beside this script; without any: all.
# An unchanged run only compares stamps. PYTHON chooses the interpreter (3.11 or newer).
set -euo pipefail
cd "$(dirname "$0")"

python="${PYTHON:-python3}"
(($#)) || set -- */requirements.lock

for peer in "${@%/requirements.lock}"; do
  stamp=$peer/.venv/.setup-stamp
  want="$(sha256sum "$peer/requirements.lock" setup.sh | sha256sum | cut -d' ' -f1)"
  [[ ! -f $stamp || $(<"$stamp") != "$want" ]] || continue
  echo "bench: installing $peer into ops/bench/$peer/.venv (once)" >&2
  "$python" -m venv --clear "$peer/.venv"
  # No isolation from pip's own configuration: a site's index is known there.
  "$peer/.venv/bin/python" -m pip --disable-pip-version-check install -qq --require-hashes \
    -r "$peer/requirements.lock" >&2
  echo "$want" >"$stamp"
done
