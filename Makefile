# One file for everything a person or CI runs. Needs Python 3.11 or newer, make, git.
#
#   make demo        the main job: compile, run, verify and draw on a real model's data
#   make test        the test suite, without a GPU
#   make check       formatting, lint, types, tests, and the wheel installed on its own
#   make fuzz        random programs, then the property tests for longer;
#                    FUZZ_PROGRAMS=20000 FUZZ_EXAMPLES=2000 FUZZ_SEED=7
#   make fuzz-parser any bytes as a file, guided by coverage; FUZZ_SECONDS=600
#   make gpu-test    the tests that need a CUDA device
#   make tables      the parser's tables, after a change of the grammar
#   make bench       compile times of the example programs
#
# The first target that is run makes the environment in .venv; that needs the network.
# Set VENV to the folder of an environment of your own to use that instead.

PYTHON ?= $(or $(shell command -v python3.11),python3)
VENV ?= .venv
JOBS ?= 2
FUZZ_PROGRAMS ?= 20000
FUZZ_EXAMPLES ?= 2000
FUZZ_SECONDS ?= 600
# Printed, so that a run can be had again.
FUZZ_SEED := $(or $(FUZZ_SEED),$(shell date +%s))

# On Linux a bare torch brings several gigabytes of CUDA libraries along. Point pip at
# PyTorch's index of CPU builds (PIP_EXTRA_INDEX_URL, or PIP_FIND_LINKS for wheels on
# disk) where there is no GPU: a CPU build of this version is preferred if pip sees one.
TORCH ?= torch==2.13.0
# Installed on its own, after torch: builds of torch ask for various versions of it, and
# a CPU build for none.
TRITON ?= triton==3.6.0

RUN := $(VENV)/bin/python
READY := $(VENV)/.ready

# The tests start many processes: what is compiled of Python's files is kept for them all.
test check: export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup demo test check fuzz fuzz-parser gpu-test tables bench clean
.DEFAULT_GOAL := test

setup: $(READY)

$(READY): requirements-dev.txt pyproject.toml
	@echo "making the environment in $(VENV) (a few minutes, once)" >&2
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(RUN) -m pip install --quiet --disable-pip-version-check \
	    "$(TRITON)" -r requirements-dev.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check \
	    --no-deps --no-build-isolation --editable .
	touch $@

demo: $(READY)
	$(RUN) examples/demo.py

test: $(READY)
	$(RUN) -m pytest -q -n $(JOBS) --dist worksteal --ignore=tests/gpu

check: $(READY)
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	HYPOTHESIS_PROFILE=ci $(RUN) -m pytest -q -n $(JOBS) --dist worksteal --ignore=tests/gpu

fuzz: $(READY)
	$(RUN) -m tests.fuzz.run --seed $(FUZZ_SEED) --count $(FUZZ_PROGRAMS)
	@echo "seed $(FUZZ_SEED), $(FUZZ_EXAMPLES) examples a property"
	HYPOTHESIS_PROFILE=fuzz FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(RUN) -m pytest -q \
	    -n $(JOBS) -m hypothesis --hypothesis-seed=$(FUZZ_SEED) --ignore=tests/gpu

fuzz-parser: $(READY)
	$(RUN) -m pip install --quiet --disable-pip-version-check "atheris>=3"
	$(RUN) -m tests.fuzz.parser_target --seed $(FUZZ_SEED) --seconds $(FUZZ_SECONDS)

gpu-test: $(READY)
	$(RUN) -m pytest -q tests/gpu

tables: $(READY)
	$(RUN) -m patternc.grammar

bench: $(READY)
	$(RUN) -m patternc bench --compile examples/*.pat

clean:
	rm -rf build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
