# Every command a contributor or CI needs. The work is in ops/; a target only names it.
.PHONY: setup demo test lint types bench lock servers clean
.NOTPARALLEL:
BIN := .venv/bin

setup:
	@ops/setup.sh

demo: setup
	$(BIN)/mingluo demo

test: setup servers lint types
	$(BIN)/python -m tests.servers -- $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

bench: setup servers
	$(BIN)/python -m tests.servers -- ops/bench/run.sh

servers:
	@ops/install-servers.sh

lock:
	@ops/lock.sh

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis dist ops/bench/*/.venv
