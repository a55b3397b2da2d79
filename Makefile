# One verb a target. `make` alone lists them; each makes what it needs from nothing.

SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
comma := ,

.PHONY: help install lint test test-gpu test-postgres compose-test demo lab lab-report bench bench-serving faults attack history load fuzz constraints clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Make .venv with the `epochal` command in it

# $(call pip_install,WHAT,STAMPS): the pinned install, in one run of pip; a stamp says that it went through.
define pip_install
@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Epochal needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
@$(BIN)/python -c '' 2>/dev/null || { echo "making $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
@echo "installing pinned dependencies; torch is the large one and takes its time"
@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '$(1)'
@touch $(2)
endef

$(VENV)/.installed: pyproject.toml constraints.txt
	$(call pip_install,.[pretrained],$@)

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	$(call pip_install,.[pretrained$(comma)dev],$@ $(VENV)/.installed)

lint: $(VENV)/.installed-dev ## Style, types, import rules, known advisories
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/advisories

test: $(VENV)/.installed-dev ## The whole suite, a real broker and worker included
	@$(BIN)/epochal data fetch cifar10
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

test-gpu: $(VENV)/.installed-dev ## Checks on a GPU, in eight minutes; writes its table to docs/benchmarks.md
	@$(BIN)/epochal data fetch cifar10
	@$(BIN)/pytest -q -m gpu tests/worker
	@$(BIN)/python -m benchmarks.gpu --write

test-postgres: $(VENV)/.installed-dev ## The store's, workers' and system's tests on PostgreSQL (Debian's programs)
	@$(BIN)/epochal data fetch cifar10
	@.ci/test-postgres

compose-test: ## The lab in containers: scaled, killed, restarted, taken down and up again (Docker, docker-compose)
	@$(PYTHON) .ci/compose-test

demo: $(VENV)/.installed ## One complete run on real images; results in demo/
	@$(BIN)/epochal demo

BUDGET ?= 30m
lab-report: $(VENV)/.installed ## Run the lab report's study and write it to lab-report/: BUDGET=30m; BUDGET= for all of it
	@$(BIN)/epochal data fetch cifar10
	@$(BIN)/epochal study run lab-report $(if $(BUDGET),--budget $(BUDGET)) --watch --data-dir lab-report/lab --report lab-report/report.html

lab: $(VENV)/.installed ## Start the lab in the foreground; Ctrl-C stops it
	@$(BIN)/epochal up

bench: $(VENV)/.installed ## Training speed, against a plain loop and the machine's ceiling
	@$(BIN)/python -m benchmarks.training

bench-serving: $(VENV)/.installed ## Predictions a second, beside a plain endpoint, LitServe and the machine's ceiling
	@$(BIN)/python -m benchmarks.serving

faults: $(VENV)/.installed-dev ## Inject every fault for real and print the outcomes
	@$(BIN)/python -m benchmarks.faults

attack: $(VENV)/.installed-dev ## Attack a lab that requires keys, while other clients use it
	@$(BIN)/python -m benchmarks.attack

MINUTES ?= 10
SEED ?= 1
DATABASE ?= sqlite
history: $(VENV)/.installed-dev ## Random faults, then a check of all answers clients got: SEED=1 MINUTES=10 DATABASE=sqlite
	@$(BIN)/python -m benchmarks.history --seed $(SEED) --minutes $(MINUTES) --database $(DATABASE)

load: $(VENV)/.installed-dev ## Load test: 10,000 stored experiments, streams and requests
	@$(BIN)/python -m benchmarks.load

fuzz: $(VENV)/.installed-dev ## Random requests, thousands for each route
	FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-2000} $(BIN)/pytest -q --timeout 0 tests/service/http/test_fuzz.py

constraints: $(VENV)/.installed-dev ## Write constraints.txt anew from what is installed
	@$(BIN)/python -m pip freeze --exclude-editable --exclude epochal | sed -E 's/\+cpu$$//' | grep -vE '^(#|-e)' > constraints.txt

clean: ## Remove what the targets above made, data of labs and caches of images aside
	rm -rf $(VENV) demo lab-report build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
