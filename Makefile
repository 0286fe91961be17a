# make reproduce | figures | pages | site | test | test-quick | test-long | lint | types | lab | lock | help. Everything lives in .venv; delete it to start anew.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
EXECUTED := $(NOTEBOOKS:notebooks/%.ipynb=executed/%.ipynb)
SCALE ?= quick
# Anything a notebook's result depends on: a change makes it run again (finished runs inside are still skipped).
SOURCES := $(shell find pwmlib companion -name '*.py' -o -name '*.toml' -o -name '*.csv' -o -path '*/kernels/*') $(wildcard data/results/*/*.csv data/published/*.csv)

export OMP_WAIT_POLICY = passive
export PYTHONWARNINGS = ignore::UserWarning
export JUPYTER_PLATFORM_DIRS = 1

RELEASED_DIR ?=
PYTEST ?= -n 2 --dist loadfile
QUICK := tests/test_house.py tests/model tests/optimizer/test_short_runs.py tests/optimizer/test_reference.py tests/optimizer/test_stacked.py

SITE_TOOLS := $(VENV)/site-tools

.PHONY: help reproduce figures pages site test test-quick test-long lint types lab lock clean

help:  ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# Two at a time: a notebook's own work fills both cores only now and then.
reproduce: $(VENV)/.installed  ## Set up if needed, then execute every notebook at SCALE=quick: figures/ and executed/
	@$(MAKE) --no-print-directory -j 2 $(EXECUTED)
	@echo "Figures are in figures/$(if $(filter quick,$(SCALE)),quick/), executed notebooks in executed/."

figures: $(VENV)/.installed  ## Every figure of the paper and the claims ledger from stored tables: figures/paper/; RELEASED_DIR=folder adds the authors' files
	@mkdir -p executed
	$(BIN)/papermill notebooks/06_figures_and_claims.ipynb executed/06_figures_and_claims.ipynb --kernel python3 -p released_dir "$(RELEASED_DIR)"
	@echo "Figures are in figures/paper/, the page in executed/06_figures_and_claims.ipynb."

pages: reproduce  ## Every notebook executed, and its results as Markdown with pictures: docs/pages/
	$(BIN)/python -m companion.paper.pages

site: $(SITE_TOOLS)  ## Executed notebooks, results, how to use it and the reference of pwmlib as a searchable site: executed/site/index.html
	rm -rf executed/site executed/site-source && mkdir -p executed/site-source
	cp -r docs executed/site-source/docs && ln -s ../../figures executed/site-source/figures
	PYTHONPATH=$(SITE_TOOLS) $(BIN)/python -m sphinx.ext.apidoc -q -e -M -o executed/site-source/docs/api pwmlib
	PYTHONPATH=$(SITE_TOOLS) $(BIN)/python -m sphinx -q -c site executed/site-source/docs executed/site
	@echo "The site is executed/site/index.html."

# Beside the environment: the lock is of what the project itself needs.
$(SITE_TOOLS): | $(VENV)/.installed
	$(BIN)/python -m pip install -q --disable-pip-version-check --target $@ sphinx==9.0.4 myst-parser==5.2.0 furo==2025.12.19 latex2mathml==3.81.1 sphinx-copybutton==0.5.2

test: $(VENV)/.installed  ## Set up if needed, then the test suite, on two processes
	$(BIN)/python -m pytest $(PYTEST) -m "not long"

test-quick: $(VENV)/.installed  ## What tells within a minute whether the method still computes what it should
	$(BIN)/python -m pytest $(PYTEST) $(QUICK)

test-long: $(VENV)/.installed  ## Proofs that something is learned, and kills in every stage: the list, then the run
	$(BIN)/python -m pytest -m long --collect-only -q
	$(BIN)/python -m pytest $(PYTEST) -m long

lint: $(VENV)/.installed  ## Style, docstrings, and the contracts on imports; make types checks the types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports

types: $(BIN)/basedpyright  ## Static types of pwmlib
	$(BIN)/basedpyright --pythonpath $(BIN)/python

# Not in the lock: it brings a whole node.js, and nothing else needs it.
$(BIN)/basedpyright: | $(VENV)/.installed
	$(BIN)/python -m pip install -q --disable-pip-version-check basedpyright==1.40.2

lab: $(VENV)/.installed  ## JupyterLab with this environment's kernel
	$(BIN)/jupyter lab notebooks

lock: $(VENV)/.installed  ## Write requirements.lock from what is installed
	$(BIN)/python -m companion.running.lock

clean:  ## Remove runs, generated episodes and executed notebooks (the environment stays)
	rm -rf runs data/cache executed figures/quick

# The figures have no scale.
executed/06_figures_and_claims.ipynb: PARAMETERS =
executed/%.ipynb: PARAMETERS = -p scale $(SCALE)
executed/%.ipynb: notebooks/%.ipynb $(VENV)/.installed $(SOURCES)
	@mkdir -p executed
	@echo "$< ..."
	@$(BIN)/papermill $< $@.part.ipynb --kernel python3 --no-progress-bar $(PARAMETERS)
	@mv $@.part.ipynb $@
	@echo "$< -> $@"

# torch first: named alone, so that no other package's range chooses another build.
$(VENV)/.installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check "$$(grep '^torch==' requirements.lock)"
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
