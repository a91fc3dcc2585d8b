# Every target sets up what it needs in .venv. PYTHON chooses the interpreter: make test PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.ready

.PHONY: setup demo test test-gpu lint types wheel clean

setup: $(SETUP)

# torch first and pinned: what comes after accepts it, and a find-links folder can offer its CPU build
$(SETUP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $(SETUP)

demo: $(SETUP)
	$(BIN)/kontext-trt demo demo --checkpoint benchmarks/small_kontext/checkpoint \
		--image docs/small-kontext/before.png --prompt "turn the orange hexagon black" --steps 28

test: lint types
	$(BIN)/python -m pytest

test-gpu: $(SETUP)
	$(BIN)/python -m pytest -m gpu

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(SETUP)
	$(BIN)/pyright --pythonpath $(BIN)/python

wheel: $(SETUP)
	$(BIN)/python -m build --wheel --outdir dist

clean:
	rm -rf $(VENV) build dist demo *.egg-info .pytest_cache .ruff_cache
