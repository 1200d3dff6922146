# Set-up on first use: a virtual environment in .venv with the versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: verify test lint docs clean

verify: $(READY)
	$(BIN)/python -m experiments verify

test: lint
	CI=1 $(BIN)/python -m pytest -n 2

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

docs: $(READY)
	$(BIN)/python -m experiments claims > docs/claims.md

# PIP_CONSTRAINT also holds for the isolated build environment, unlike `pip install -c`.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

clean:
	rm -rf .venv results report
