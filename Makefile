SHELL := /bin/bash
# make demo: environment, then smoke around a bunny; make test: the fast tests. Nothing to install by hand.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
# threads of torch and BLAS sleep while they wait: a busy machine keeps its pace
export OMP_WAIT_POLICY ?= passive

.PHONY: demo demo-operator test slow lint bench bench-gpu clean

demo: $(READY)
	$(BIN)/neuralsolve simulate problems/smoke_bunny.toml --out-dir out/smoke_bunny --force

# Darcy flow from nothing: samples, a trained Latent Spectral Model, its figures; three minutes
demo-operator: $(READY)
	$(BIN)/neuralsolve train problems/train_darcy16.toml --out-dir out/demo-operator

test: $(READY)
	$(BIN)/python -m pytest -q

slow: $(READY)
	$(BIN)/python -m pytest -q -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# Two hours on two quiet cores; the rows and the page made from them are committed. PETSc takes part where
# NEURALSOLVE_PETSC_PYTHON names an interpreter that has petsc4py and mpi4py, real matrices where
# NEURALSOLVE_DATA names a folder that holds them.
bench: $(READY)
	$(BIN)/neuralsolve bench --csv data/bench/kernels.csv --plot docs/images/bench_kernels.png --repeats 7 --force
	$(BIN)/neuralsolve bench poisson_box_2d poisson_box_3d poisson_masked poisson_layers step_channel \
	  --repeats 5 --csv data/bench/cases.csv --plot docs/images/bench_cases.png --force
	test -z "$$NEURALSOLVE_DATA" || $(BIN)/neuralsolve bench --repeats 5 --rhs random \
	  $$(ls "$$NEURALSOLVE_DATA"/matrices/{bcsstk1[36],gr_30_30,lap2D_5pt_n100,lap3D_7pt_n20,olm1000}.mtx \
	  "$$NEURALSOLVE_DATA"/matrices/bunny35k_cotan_laplacian.npz) \
	  --csv data/bench/matrices.csv --plot docs/images/bench_matrices.png --force
	$(BIN)/neuralsolve bench --suite multigrid \
	  --csv data/bench/multigrid.csv --plot docs/images/bench_multigrid.png --force
	$(BIN)/neuralsolve bench --suite learned \
	  --csv data/bench/learned.csv --plot docs/images/bench_learned.png --force
	$(BIN)/neuralsolve bench --suite tuned \
	  --csv data/bench/tuned.csv --plot docs/images/bench_tuned.png --force
	$(BIN)/neuralsolve bench --suite fields \
	  --csv data/bench/fields.csv --plot docs/images/bench_fields.png --force
	$(BIN)/neuralsolve bench --suite optimize \
	  --csv data/bench/optimize.csv --plot docs/images/bench_optimize.png --force
	$(BIN)/neuralsolve bench --suite ssm --csv data/bench/ssm.csv --plot docs/images/bench_ssm.png --force
	$(BIN)/neuralsolve bench --suite lowrank \
	  --csv data/bench/lowrank.csv --plot docs/images/bench_lowrank.png --force
	NEURALSOLVE_DATA= $(BIN)/neuralsolve simulate smoke_bunny --out-dir out/bench_smoke --force
	mkdir -p data/bench/smoke && cp out/bench_smoke/smoke_bunny.{csv,md} data/bench/smoke
	$(BIN)/python -m neuralsolve.bench.page data/bench docs/benchmarks.md

# Needs a CUDA device, and a torch built for it; without them it ends at its first line, which says what is missing.
# Then the tests that only a GPU can run, the kernels' laws compiled there instead of interpreted, and the suite, its
# rows and its picture. CuPy takes part where it is installed (pip install cupy-cuda12x).
bench-gpu: $(READY)
	$(BIN)/neuralsolve bench --suite gpu --quick --only bandwidth
	$(BIN)/python -m pytest -q -m gpu
	$(BIN)/python -m pytest -q tests/laws.py tests/test_kernels*.py
	$(BIN)/neuralsolve bench --suite gpu --csv data/bench/gpu.csv --plot docs/images/bench_gpu.png --force
	$(BIN)/python -m neuralsolve.bench.page data/bench docs/benchmarks.md

$(READY): pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(READY)

clean:
	rm -rf .venv out build dist .pytest_cache .ruff_cache .hypothesis
