# Every target makes .venv and installs what is missing first. `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Stamps: newer than the requirements means that they are installed. The demo does not wait for linters.
LAB := $(VENV)/installed-lab
DEV := $(VENV)/installed-dev
PEERS := $(VENV)/installed-bench

# A .venv whose Python is gone (an upgrade, a directory that was moved) still has its stamps. They are removed, so that it is
# made again. pip is asked because its first line names that Python, as those of gunicorn and celery do.
ifneq ($(wildcard $(VENV)),)
ifneq ($(shell $(BIN)/pip --version >/dev/null 2>&1 && echo works),works)
$(shell rm -f $(LAB) $(DEV) $(PEERS) $(BIN)/pip; echo "make: the Python of $(VENV) is gone: making it again" >&2)
endif
endif

# A misspelt variable (`make demo ORDER=5`) would be ignored without a word. The known ones are those of docs/environment.md.
GIVEN := $(strip $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name))))
ifneq ($(GIVEN),)
UNKNOWN := $(filter-out $(shell sed -n 's/^| `\([A-Z_]*\)`.*/\1/p' docs/environment.md),$(GIVEN))
ifneq ($(UNKNOWN),)
$(error there is no variable $(UNKNOWN); docs/environment.md lists them)
endif
endif

export PORT ORDERS
PORT ?= 8000
ORDERS ?= 100

.DEFAULT_GOAL := help
.PHONY: help demo up test proof spec docs chaos bench lint

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile

demo: $(LAB) ## place ORDERS=100 orders while 30 % of outside calls fail, and check the outcome
	@$(BIN)/python -m lab.demo

up: $(LAB) ## run everything at PORT=8000 until Ctrl-C
	@$(BIN)/python -m lab.up

# Three on two cores: half of a test's time is spent waiting for servers and processes.
test: $(DEV) ## the test suite; make test ARGS="-k relay" runs a part
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadfile $(ARGS)

proof: $(DEV) ## the long proofs: kills, both brokers, thousands of messages
	@$(BIN)/python -m lab.proof $(ARGS)

spec: $(DEV) ## docs/SPEC.md: which test proves which sentence of which promise, and how it ended last
	@$(BIN)/python -m lab.spec

docs: $(DEV) ## the documentation as a site, in var/site/index.html
	@$(BIN)/zensical build --strict --clean
	@$(BIN)/python -m lab.spec.site

# A chaos run that is not told how many orders to place takes as many as its minutes are good for, not the demo's.
chaos: ORDERS := $(if $(filter environment,$(origin ORDERS)),$(ORDERS))
chaos: $(LAB) ## faults under load: MINUTES=10 ORDERS= SEED= BROKER=redis|rabbitmq NAIVE=1
	@$(BIN)/python -m lab.chaos

bench: $(LAB) $(PEERS) ## the benchmarks, side by side with peers; make bench ARGS="relay idle" runs a part
	@$(BIN)/python -m lab.bench $(ARGS)

lint: $(DEV) ## ruff, codespell, prose, mypy, import rules, migrations, deployment checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/python -m lab.prose
	$(BIN)/python -m lab.lint

$(LAB): requirements.txt requirements-lab.txt
$(DEV): requirements.txt requirements-lab.txt requirements-tracing.txt requirements-dev.txt

# The Python is checked before anything is made, so that a failure leaves nothing behind that looks finished.
$(LAB) $(DEV):
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON): install Python 3.11 or newer, or say where it is: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is $$($(PYTHON) -V 2>&1), 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: $(PYTHON) has no venv module: apt install python3-venv" >&2; exit 1; }
	@echo "installing $(@:$(VENV)/installed-%=requirements-%.txt) into $(VENV) ..."
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input -r $(@:$(VENV)/installed-%=requirements-%.txt)
	@touch $@

# The peers of the benchmarks have a venv of their own: they bring psycopg 3, for which Django would leave psycopg2.
$(PEERS): requirements.txt requirements-bench.txt | $(LAB)
	@echo "installing requirements-bench.txt into $(VENV)/peers ..."
	@test -x $(VENV)/peers/bin/pip || $(BIN)/python -m venv --clear $(VENV)/peers
	@$(VENV)/peers/bin/python -m pip install --quiet --disable-pip-version-check --no-input -r requirements-bench.txt
	@touch $@
