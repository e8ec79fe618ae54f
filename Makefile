# Every target does its own set-up: a clone and a Python are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Empty unless asked for: `make bench QUICK=1`. The quick form is the only one so far.
QUICK ?=

GUIDE_PROTO := protos/user_defined_protos.proto
GUIDE := examples/guide
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test check bench bench-codegen codegen install clean distclean

help: ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

demo: codegen ## Run Ray Serve's gRPC guide from its first call to its last, and leave nothing running.
	$(BIN)/python $(GUIDE)/demo.py

test: check ## Run the checks and every test.
	$(BIN)/pytest --doctest-modules sdk codegen
	$(BIN)/pytest

check: $(INSTALLED) ## Lint, check the types, and compare generated code with the protos.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/sdk codegen $(GUIDE_PROTO) --out $(GUIDE) --check
	$(BIN)/python protos/compile_own.py --check
	$(BIN)/pytest tests/codegen/test_cases.py -k committed
	cd $(GUIDE) && for app in app1 app2 app3; do $(CURDIR)/$(BIN)/sdk check --strict $$app || exit 1; done
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(INSTALLED) ## Measure unary calls beside a bare grpc.aio server. Needs h2load (nghttp2-client).
	$(BIN)/python tests/benchmarks/bench.py $(if $(QUICK),--quick)

bench-codegen: $(INSTALLED) ## Measure sdk codegen on 1000 protos beside protoc with the other generators.
	$(BIN)/python tests/benchmarks/codegen_bench.py

codegen: $(INSTALLED) ## Generate the code of every proto in the repository again.
	$(BIN)/sdk codegen $(GUIDE_PROTO) --out $(GUIDE)
	$(BIN)/python protos/compile_own.py
	$(BIN)/python tests/codegen/test_cases.py

install: $(INSTALLED) ## Make .venv with the exact versions of constraints.txt.

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -e '.[dev]' -c constraints.txt
	touch $@

clean: ## Remove what tests, builds and benchmarks wrote.
	rm -rf build dist bench-results .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f $(GUIDE)/digits.joblib $(GUIDE)/digit.png
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean ## Remove .venv too.
	rm -rf $(VENV)
