# make demo: environment, then smoke around a bunny; make test: the fast tests. Nothing to install by hand.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test slow lint bench clean

demo: $(READY)
	$(BIN)/neuralsolve simulate problems/smoke_bunny.toml --out-dir out/smoke_bunny --force

test: $(READY)
	$(BIN)/python -m pytest -q

slow: $(READY)
	$(BIN)/python -m pytest -q -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: $(READY)
	$(BIN)/neuralsolve bench --csv data/bench/kernels.csv --plot docs/images/bench_kernels.png --force

$(READY): pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(READY)

clean:
	rm -rf .venv out build dist .pytest_cache .ruff_cache .hypothesis
