#!/usr/bin/env bash
# Run `mingluo bench` on the servers that tests.servers has started. Called by `make bench`; arguments are the bench's.
# The page of the repository: python -m tests.servers -- ops/bench/run.sh all --write docs/benchmarks.md
set -euo pipefail
export MINGLUO_AMQP_URL="$MINGLUO_TEST_AMQP_URL"
export MINGLUO_DATABASE_URL="$MINGLUO_TEST_DATABASE_URL"
export MINGLUO_REDIS_URL="$MINGLUO_TEST_REDIS_URL"
exec "$(dirname "$0")/../../.venv/bin/mingluo" bench "$@"
