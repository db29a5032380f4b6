# `make demo` and `make test` do everything on a machine that has Python, make and a package index.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

# One intra-op thread per process: OpenMP's spinning threads collapse on shared cores.
export OMP_NUM_THREADS ?= 1

DEMO_SECONDS ?= 30
DEMO_ARGS    ?=

.PHONY: help demo test lint format bench clean

help:
	@echo "make demo    watch split detection work on this machine ($(DEMO_SECONDS) s; DEMO_SECONDS=N, DEMO_ARGS='--source ...')"
	@echo "make test    run the test suite"
	@echo "make lint    ruff, ruff format --check, mypy --strict"
	@echo "make bench   time the codec against zlib and zstd"

$(VENV)/.ok: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

demo: $(VENV)/.ok
	$(BIN)/splitcast demo --seconds $(DEMO_SECONDS) $(DEMO_ARGS)

test: $(VENV)/.ok
	$(BIN)/python -m pytest

lint: $(VENV)/.ok
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.ok
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.ok
	$(BIN)/python -m pytest tests/benchmarks --benchmark-enable --benchmark-only --benchmark-columns=median,iqr,rounds --benchmark-sort=name

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .benchmarks .hypothesis build dist *.egg-info
