# make demo | test | lint | constraints | clean. Needs git, make and Python 3.11 or newer; everything is installed into .venv.

VENV   ?= .venv
CHECKED := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3.11 python3 python3.13 python3.12 python; do $$p -c '$(CHECKED)' 2>/dev/null && { echo $$p; break; }; done)

BIN     := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt
PINS    := pyproject.toml constraints.txt

# Molecules of this size are fastest on one thread, and timings mean something only there.
export OMP_NUM_THREADS = 1

.PHONY: demo test lint constraints clean

demo: $(VENV)/.installed-demo
	$(BIN)/mlff-sim demo --out runs/demo

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -q --durations=15

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed, and the one here is $$(python3 --version 2>&1); install it or say PYTHON=/path/to/python3.11." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# A stamp marks an installation that succeeded; it is renewed when the pins change. The environment's python is a link
# whose date says nothing, hence "|".
$(VENV)/.installed-demo: $(PINS) | $(VENV)/bin/python
	@echo "Installing into $(VENV); torch is large, this takes a few minutes the first time."
	@$(INSTALL) --editable '.[xtb]'
	@touch $@

$(VENV)/.installed-test: $(PINS) | $(VENV)/bin/python
	@echo "Installing into $(VENV) with everything the tests and checks need; this takes some minutes the first time."
	@$(INSTALL) --editable '.[xtb,mace,torchforce,openmm-ml,chgnet,dft,mmff,predictor,dev]'
	@touch $@ $(VENV)/.installed-demo

# From an environment that has all extras, in the versions one wants to test with from now on.
constraints: $(VENV)/bin/python
	@{ sed -n '/^#/p' constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | LC_ALL=C sort -f; } > constraints.new
	@mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
