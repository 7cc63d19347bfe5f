# `make demo` runs the main job from nothing; `make test` runs the tests. Both set up .venv first.
PYTHON ?= python3.11
SEED ?= 0
PATIENTS ?=
MIMIC_IV ?=
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: setup demo test lint
setup: $(VENV)/ready

$(VENV)/ready: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

demo: setup
	PYTHON=$(RUN) SEED=$(SEED) PATIENTS=$(PATIENTS) MIMIC_IV=$(MIMIC_IV) bash demo.sh

test: setup lint
	OMP_NUM_THREADS=2 $(RUN) -m pytest

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
