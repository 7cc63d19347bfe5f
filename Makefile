# `make demo` runs the main job from nothing; `make test` runs the checks and tests. Both set up .venv first.
PYTHON ?= python3.11
SEED ?= 0
PATIENTS ?=
MIMIC_IV ?=
VENV := .venv
RUN := $(VENV)/bin/python
JOBS ?= 2
SHARED := -n $(JOBS) --dist worksteal  # how many tests run at once
MUTMUT := mutmut==3.8.1  # installed by make mutation
PIP_AUDIT := pip-audit==2.10.1  # installed by make audit, in an environment of its own
REPORT := $(VENV)/audit/report.txt
WHEELS ?= wheels
WHEELS_FOR ?= 3.12  # Python of the machine with the GPU
# What a machine with PyTorch, pandas, PyArrow and pytest may lack to train: 56 MB.
CARRIED := tyro docstring-parser typeguard polars polars-runtime-32 pydantic pydantic_core annotated-types \
  typing-inspection

.PHONY: setup demo test lint coverage mutation faults fuzz audit wheels gpu
setup: $(VENV)/ready

$(VENV)/ready: requirements.txt constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

demo: setup
	PYTHON=$(RUN) SEED=$(SEED) PATIENTS=$(PATIENTS) MIMIC_IV="$(MIMIC_IV)" bash demo.sh

test: setup lint
	OMP_NUM_THREADS=1 $(RUN) -m pytest $(SHARED)

gpu:  # at most 8 minutes on an H100: tests and measures what CI cannot; needs PyTorch for CUDA, and no network
	WHEELS=$(WHEELS) bash benchmarks/gpu.sh

wheels: setup  # for make gpu on a machine without network: carry this folder there
	mkdir -p $(WHEELS)
	$(RUN) -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest $(WHEELS) \
	  --implementation cp --python-version $(WHEELS_FOR) --platform manylinux_2_28_x86_64 \
	  --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
	  $(foreach name,$(CARRIED),$$(grep -h "^$(name)==" requirements.txt constraints.txt))

faults: setup  # some 5 minutes: kills each long command at random moments, resumes it, and compares
	OMP_NUM_THREADS=1 $(RUN) -m tests.faults

fuzz: setup  # some 5 minutes: feeds faulty tables, images, stores, checkpoints and settings to the commands
	$(RUN) -m tests.fuzz

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/codespell $$(git ls-files)
	$(VENV)/bin/shellcheck --severity style $$(git ls-files '*.sh') .ci/run

coverage: setup
	OMP_NUM_THREADS=1 $(RUN) -m pytest $(SHARED) --cov --cov-report=term:skip-covered

mutation: setup
	$(RUN) -m pip install --quiet --disable-pip-version-check $(MUTMUT)
	rm -rf mutants
	OMP_NUM_THREADS=1 POLARS_MAX_THREADS=1 $(VENV)/bin/mutmut run
	$(RUN) -m tools.mutation

audit: setup  # are all dependencies pinned? and, if PyPI answers, has one of them a known vulnerability?
	$(RUN) -m pytest tests/test_security.py -k pinned
	-$(RUN) -m pip install --quiet --dry-run --no-index --disable-pip-version-check -r requirements.txt
	$(PYTHON) -m venv --clear $(VENV)/audit
	-$(VENV)/audit/bin/pip install --quiet --retries 1 --disable-pip-version-check $(PIP_AUDIT)
	-$(VENV)/audit/bin/pip-audit --no-deps --disable-pip -r requirements.txt -r constraints.txt > $(REPORT) 2>&1
	@cat $(REPORT)
	@grep -q "known vulnerab" $(REPORT) || echo "PyPI did not answer: nothing was checked but the pins"
	@! grep -q "^Found" $(REPORT)
