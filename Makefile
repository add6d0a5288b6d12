# Needs python 3.11 or later and make; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo ui test quick lint benchmarks fuzz screenshots pictures clean

help:
	@echo "make demo        install, train two models on the handwritten digits, compare them"
	@echo "make ui          show the runs of the demo in MLflow and TensorBoard"
	@echo "make test        the whole test suite"
	@echo "make quick       the suite without the slow tests"
	@echo "make lint        ruff and mypy"
	@echo "make benchmarks  the benchmarks, against the hand-written loop"
	@echo "make fuzz        the reader of bundles against files that are changed at random, for an hour"
	@echo "make screenshots the pictures of the docs, with Chromium"
	@echo "make pictures    the pictures of docs/images.md"

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/python examples/digits.py

ui: $(INSTALLED)
	$(BIN)/gymtrain ui $(CURDIR)/runs

test: $(INSTALLED)
	$(BIN)/python -m pytest

quick: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow"

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

benchmarks: $(INSTALLED)
	$(BIN)/python benchmarks/train.py
	$(BIN)/python benchmarks/contenders.py
	$(BIN)/python benchmarks/costs.py
	$(BIN)/python benchmarks/compiling.py
	$(BIN)/python benchmarks/checkpoints.py
	$(BIN)/python benchmarks/kills.py
	$(BIN)/python benchmarks/tracking.py
	$(BIN)/python benchmarks/augmentors.py
	$(BIN)/python benchmarks/images.py
	$(BIN)/python benchmarks/predict.py
	$(BIN)/python benchmarks/augmentors.py
	$(BIN)/python benchmarks/imports.py

fuzz: $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[fuzz]'
	$(BIN)/python benchmarks/coverage_fuzzing.py -max_total_time=180
	$(BIN)/python benchmarks/fuzzing.py --minutes 60

pictures: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python docs/pictures.py

screenshots: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python docs/screenshots.py

clean:
	rm -rf $(VENV) runs build dist .pytest_cache .mypy_cache .ruff_cache
