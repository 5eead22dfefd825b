# make run: the demo, served until Ctrl-C. make stripe-demo: a billing cycle against the tests' Stripe. make test: every check. make test-long: the simulation for hours. Each needs Python 3.11+, pip and make, and makes .venv by itself.

.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: run stripe-demo test test-long check suite sim cutover-demo bench sync schema openapi lock clean

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
CHECKED := src tests tools $(wildcard benchmarks) $(wildcard examples)
TYPED := src tests tools $(patsubst %/,%,$(dir $(wildcard benchmarks/__init__.py)))
PYTEST_ARGS ?= -n auto --maxprocesses=6

run: $(STAMP)
	$(BIN)/meterbook demo --serve

stripe-demo: $(STAMP)
	$(BIN)/python -m tests.stripe_demo

test: check suite

suite: $(STAMP)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(STAMP)
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/mypy $(TYPED)
	$(BIN)/lint-imports
	$(BIN)/python tools/generate_sync.py --check

# Random histories against the independent auditor: make sim SEED=42, or make sim HISTORIES=100
sim: $(STAMP)
	$(BIN)/python -m tests.simulation $(SEED) $(if $(SEED),,--histories $(or $(HISTORIES),20))

# A million steps, over all processors: about 1 s of one processor a history of 60 steps, so 2¼ hours on two. Each ten histories that agree
# are said. Goes on where it was stopped: make test-long FIRST=4201
test-long: $(STAMP)
	$(BIN)/python -m tests.simulation --first $(or $(FIRST),1) --histories $$((16668 - $(or $(FIRST),1))) --processes $$(getconf _NPROCESSORS_ONLN)

# A product with live traffic goes from its counters to the ledger; exit code 1 if a cent is missing. About half a minute.
cutover-demo: $(STAMP)
	$(BIN)/python -m tests.legacy_product

bench: $(STAMP)
	$(BIN)/python -m benchmarks

sync: $(STAMP)
	$(BIN)/python tools/generate_sync.py

schema: $(STAMP)
	$(BIN)/python tools/dump_schema.py

openapi: $(STAMP)
	$(BIN)/python tools/write_openapi.py

# Exact versions, no index and no host: the same files serve any mirror.
lock: $(STAMP)
	$(BIN)/python tools/lock_requirements.py

$(STAMP): requirements-dev.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "meterbook needs Python 3.11 or newer; try: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
