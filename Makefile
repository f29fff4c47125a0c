# `make demo` shows what it does, `make test` whether it holds. Each target sets up .venv by itself, once, and again
# when the requirements change: see requirements/install.py. PYTHON=python3.12 picks another interpreter.

PYTHON ?= python3
PROMPT ?= a penguin dances in front of a red umbrella
SEED ?= 0
STAGES ?=
STEPS ?=
OUT ?=
WORKERS ?= 2

# The prompt reaches the script through the environment, byte for byte: neither make nor the shell reads it.
override VDM_PROMPT := $(value PROMPT)
override VDM_OUT := $(value OUT)
export VDM_PROMPT VDM_OUT
unexport PROMPT OUT

PY := .venv/bin/python
RUN := @$(PYTHON) requirements/install.py run
DEV := @$(PYTHON) requirements/install.py dev
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: help demo test train-smoke bench results docs lint clean

help:
	@echo 'make demo [PROMPT="..."] [SEED=0] [STAGES=7] [STEPS=full] [OUT=folder]  text to video, seven stages'
	@echo 'make test         lint, types, documentation, tests'
	@echo 'make train-smoke  a few training steps of every stage'
	@echo 'make results      the numbers in docs/results.md'
	@echo 'make bench        overhead and memory of each step rule, seconds and memory of each stage'
	@echo 'make docs         the documentation, into site/'
	@echo 'make lint         ruff and mypy'
	@echo 'make clean        remove .venv and site'

demo:
	$(RUN)
	@$(PY) examples/cascade/demo.py --prompt="$$VDM_PROMPT" --seed='$(SEED)' \
	  $(if $(value OUT),--out="$$VDM_OUT") $(if $(STAGES),--stages='$(STAGES)') $(if $(STEPS),--steps='$(STEPS)')

train-smoke:
	$(RUN)
	@rm -rf out/smoke && mkdir -p out/smoke/weights
	@$(PY) examples/cascade/train.py --smoke --out out/smoke --weights out/smoke/weights

results:
	$(RUN)
	@$(PY) examples/cascade/evaluate.py

bench:
	$(RUN)
	@KINETO_LOG_LEVEL=99 $(PY) benchmarks/steps.py
	@$(PY) benchmarks/stages.py

lint:
	$(DEV)
	@$(PY) -m ruff check --quiet .
	@$(PY) -m ruff format --quiet --check .
	@$(PY) -m mypy --no-error-summary

docs:
	$(DEV)
	@$(ONE_THREAD) $(PY) docs/render_notebooks.py
	@$(ONE_THREAD) NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet --strict

test: lint docs
	@$(ONE_THREAD) $(PY) -m pytest -q -n $(WORKERS)

clean:
	rm -rf .venv site build dist docs/notebooks
