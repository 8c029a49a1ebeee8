# From a bare clone: `make audit` judges everything there is to judge, `make test` runs every test.
PY ?= python3
OUTPUT ?= reports
BIN := .venv/bin
STAMP := .venv/.installed

# The tensors here are tiny: a second thread only gets in the way, and sums in another order differ in the last digit.
export OMP_NUM_THREADS := 1

.PHONY: audit test lint notebooks render bench setup clean

audit: $(STAMP)
	$(BIN)/specproof audit --output $(OUTPUT)

test: lint
	$(BIN)/python -m pytest -q -n auto

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

notebooks: $(STAMP)
	$(BIN)/python -m pytest -q notebooks

# The executed notebooks, from their sources.
render: $(STAMP)
	$(BIN)/python tests/render_notebooks.py notebooks/*.py

bench: $(STAMP)
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only -o addopts=''

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PY) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,peers]'
	touch $@

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
