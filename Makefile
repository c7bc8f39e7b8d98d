# Two commands are all the set-up there is: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow bench clinic fuzz lint types imports install clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: install
	$(BIN)/samdiag demo digits --out demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

imports: install
	$(BIN)/lint-imports

test: lint types imports
	$(BIN)/python -m pytest -n auto -m "not slow"

test-slow: install
	$(BIN)/python -m pytest -n auto -m slow

bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/real_checkpoint.py
	$(BIN)/python benchmarks/products.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/peers.py
	$(BIN)/python benchmarks/fleet.py

# resumable; one to two hours on two cores
clinic: install
	$(BIN)/python -m benchmarks.clinic run --out build/clinic
	$(BIN)/python -m benchmarks.clinic report --out build/clinic

# coverage-guided, an hour over every reader of what comes with a checkpoint
fuzz: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,fuzz]'
	$(BIN)/python -m tests.fuzz.run all --minutes 60 --corpus build/fuzz

$(VENV)/.installed-bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,bench]'
	touch $@

clean:
	rm -rf $(VENV) demo build dist *.egg-info
