# Every target sets up what it needs. `make setup` builds .venv from the lock and does nothing when that is current.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3.11
BIN := .venv/bin
LOCKED := .venv/.locked
INSTALLED := .venv/.installed
MCP := build/mcp
WATCH := build/watch
CLIENTS := build/clients
CLIENT_GROUPS := official others aider
BENCH ?=

# The tests start hundreds of programs: each would compile the house anew, and each of their workers all the tests.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test test-slow check format test-abuse soak test-faults test-compose test-mcp test-watch test-clients bench sbom audit proto lock

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(INSTALLED) ## build .venv from the lock

# The lock holds everything, so nothing is resolved here (--no-deps): the weights' package would ask for a compiler.
# Its text counts, not its time, which each checkout and rebase makes new.
$(LOCKED): requirements-dev.lock
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is needed (or: make PYTHON=...)" >&2; exit 1; }
	@cmp -s $< .venv/$< || { \
		echo "building .venv from the lock, about a minute"; \
		rm -rf .venv; \
		$(PYTHON) -m venv .venv; \
		$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r $<; \
		cp $< .venv/$<; }
	touch $@

$(INSTALLED): $(LOCKED) pyproject.toml
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python -c "import xllamacpp" || echo "the bundled model will not load; on Debian: apt install libgomp1" >&2
	touch $@

demo: setup ## the pair on the bundled model: words, a tool, a stop in mid-sentence
	$(BIN)/python -m dispatcher demo

test: setup ## every test but the slow targets below
	$(BIN)/pytest -n 4 --dist worksteal -m "not slow and not abuse and not faults and not compose and not mcp and not watch and not clients"

test-slow: setup ## the programs as their users start them; the bundled model
	$(BIN)/pytest -n 4 --dist worksteal -m "slow and not abuse and not faults and not compose and not mcp and not watch and not clients"

check: setup ## style, types, imports between rooms, names, generated code, contract
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/pytest -q tests/shared/test_imports.py tests/shared/test_names.py
	$(BIN)/python protos/generate.py --check
	$(BIN)/buf lint
	@mkdir -p build/released && cp protos/released/agent.proto build/released/ # buf takes no part of its own module
	$(BIN)/buf breaking --against build/released

format: setup ## rewrite the sources in the project's style
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

test-faults: setup ## break real processes and lines (FAULT_SEED, FAULT_COUNT); search the rules' interleavings
	$(BIN)/pytest -m faults tests
	HYPOTHESIS_PROFILE=long $(BIN)/pytest -n 2 --timeout 3600 tests/dispatcher/core/test_session_machine.py tests/dispatcher/policies

test-abuse: setup ## attack real processes, with honest users beside
	$(BIN)/pytest -m abuse tests/abuse

soak: setup ## sessions in great number, and nothing that grows with them (SOAK_SECONDS)
	SOAK_SECONDS=$${SOAK_SECONDS:-600} $(BIN)/pytest -m abuse tests/abuse/test_soak.py

test-compose: setup ## bring up the compose file on a real engine
	$(BIN)/pytest -m compose tests/compose

$(MCP)/.installed: tests/mcp_servers/package-lock.json tests/mcp_servers/requirements.lock
	rm -rf $(MCP) && mkdir -p $(MCP)
	$(PYTHON) -m venv $(MCP)/python
	$(MCP)/python/bin/python -m pip install --quiet --no-deps --require-hashes -r tests/mcp_servers/requirements.lock
	cp tests/mcp_servers/package.json tests/mcp_servers/package-lock.json $(MCP)
	PATH="$(CURDIR)/$(MCP)/python/bin:$$PATH" npm ci --prefix $(MCP) --ignore-scripts --no-audit --no-fund --loglevel error
	touch $@

test-mcp: setup $(MCP)/.installed ## MCP servers that others wrote, and the protocol's own conformance suite
	$(BIN)/pytest -m mcp tests/mcp_servers

$(WATCH)/.installed: tests/watch/package-lock.json $(MCP)/.installed
	rm -rf $(WATCH) && mkdir -p $(WATCH)
	cp tests/watch/package.json tests/watch/package-lock.json $(WATCH)
	PATH="$(CURDIR)/$(MCP)/python/bin:$$PATH" npm ci --prefix $(WATCH) --ignore-scripts --no-audit --no-fund --loglevel error
	touch $@

test-watch: setup $(WATCH)/.installed ## the pages with axe-core, the dashboard with a Prometheus
	$(BIN)/pytest -m watch tests/watch

# By uv: pip takes minutes for so many packages.
$(CLIENTS)/.installed: $(wildcard tests/clients/*.lock) tests/clients/package-lock.json $(MCP)/.installed
	rm -rf $(CLIENTS) && mkdir -p $(CLIENTS)
	$(PYTHON) -m venv $(CLIENTS)/uv
	$(CLIENTS)/uv/bin/python -m pip install --quiet --no-deps --require-hashes -r tests/clients/uv.lock
	for group in $(CLIENT_GROUPS); do \
		$(PYTHON) -m venv --without-pip $(CLIENTS)/$$group; \
		$(CLIENTS)/uv/bin/uv pip install --quiet --no-deps --require-hashes \
			--python $(CLIENTS)/$$group/bin/python -r tests/clients/$$group.lock; \
	done
	cp tests/clients/package.json tests/clients/package-lock.json $(CLIENTS)
	PATH="$(CURDIR)/$(MCP)/python/bin:$$PATH" npm ci --prefix $(CLIENTS) --ignore-scripts --no-audit --no-fund --loglevel error
	ln -s ../../tests/clients/drivers $(CLIENTS)/drivers
	touch $@

test-clients: setup $(CLIENTS)/.installed ## OpenAI clients that others wrote (CLIENTS_WRITE=1: into docs/clients.md)
	$(BIN)/pytest -m clients tests/clients

bench: setup ## measure against a floor and a plain gateway (a short run: BENCH_SECONDS=1 BENCH_ROUNDS=1)
	$(BIN)/python -m tests.bench $(BENCH)

AUDIT := build/audit
SHIPPED := requirements.lock requirements-local.lock

$(AUDIT)/.installed: requirements-audit.lock
	rm -rf $(AUDIT)
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --no-deps --require-hashes -r $<
	touch $@

sbom: $(AUDIT)/.installed ## what the images' Python packages are, as CycloneDX: build/requirements*.cdx.json
	for lock in $(SHIPPED); do \
		$(AUDIT)/bin/cyclonedx-py requirements $$lock --of JSON --output-reproducible -o build/$${lock%.lock}.cdx.json; \
	done

audit: $(AUDIT)/.installed ## look for known vulnerabilities of these packages (asks the Python package index)
	$(AUDIT)/bin/pip-audit --strict --disable-pip --require-hashes $(SHIPPED:%=-r %)

proto: setup ## generate shared/pb from protos/agent.proto
	$(BIN)/python protos/generate.py

UV = $(or $(shell command -v uv),build/uv/bin/uv)
COMPILE = $(UV) pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock"

lock: ## resolve again (LOCK=--upgrade: to the newest): names, versions, hashes, and no registry
	@command -v uv >/dev/null || { $(PYTHON) -m venv build/uv && build/uv/bin/pip install --quiet uv; }
	$(COMPILE) $(LOCK) pyproject.toml --extra local --extra openai --extra mcp --extra traces --group dev -o requirements-dev.lock
	$(COMPILE) pyproject.toml --constraint requirements-dev.lock --extra mcp --extra traces -o requirements.lock
	$(COMPILE) pyproject.toml --constraint requirements-dev.lock --extra local --extra openai --extra traces --group weights -o requirements-local.lock
	$(COMPILE) $(LOCK) tests/mcp_servers/requirements.in -o tests/mcp_servers/requirements.lock
	for group in uv $(CLIENT_GROUPS); do \
		$(COMPILE) $(LOCK) tests/clients/$$group.in -o tests/clients/$$group.lock; \
	done
	$(COMPILE) --group build --constraint requirements-dev.lock -o requirements-build.lock
	$(COMPILE) --group audit -o requirements-audit.lock
