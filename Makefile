# make demo | test | test-full | test-kill | lint | check | bench | bench-full | bench-prune | bench-gpu |
#      bench-pipeline | trust | aot | readme | clean
#
# Every target makes .venv itself from the pins and builds the extension into the source tree.
# PYTHON=     the interpreter that makes .venv (3.11 or newer: the pinned scikit-image needs it)
# TORCH_INDEX= a package index to take torch from, for instance PyTorch's own for a CUDA version;
#             a torch that is already in .venv is kept
# VQK_CUDA=   auto (default: GPU kernels are built where nvcc works), on (a build without them fails)
#             or off; after a change, `make clean` builds anew

PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
NATIVE := $(wildcard csrc/*.cpp csrc/*/*.cpp csrc/*/*.h csrc/*/*.cu csrc/*/*.cuh csrc/*/*/*.h csrc/*/*/*/*.h) \
  CMakeLists.txt $(wildcard cmake/*.cmake) setup.py pyproject.toml
BENCHMARKS := $(BIN)/python -m pytest -p no:xdist --benchmark-columns=median,iqr,rounds,iterations benchmarks
SOURCES := git ls-files --cached --others --exclude-standard

.PHONY: demo test test-full test-kill lint bench bench-full bench-prune bench-gpu bench-pipeline trust aot check \
  readme clean

demo: $(VENV)/built
	$(BIN)/vqk run digits

# SEED= repeats what the random tests drew; make prints the one it uses. WORKERS= processes, of
# which OpenMP's idle threads must not take the cores from the others.
SEED ?= $(shell date +%s)
WORKERS ?= auto
TESTS := OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist worksteal

test: $(VENV)/test-tools $(VENV)/built
	$(TESTS) --hypothesis-seed=$(SEED)

# 5000 random cases per property instead of 200.
test-full: $(VENV)/test-tools $(VENV)/built
	$(TESTS) --hypothesis-seed=$(SEED) --hypothesis-profile=full

# SIGKILL at KILLS random moments of each training and of extraction; `make test` has one of each.
KILLS ?= 20
test-kill: $(VENV)/test-tools $(VENV)/built
	KILLS=$(KILLS) SEED=$(SEED) $(BIN)/python -m pytest -p no:xdist -v tests/pipeline/test_kill.py

lint: $(VENV)/test-tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(SOURCES) '*.h' '*.cpp' '*.cu' '*.cuh' | xargs $(BIN)/clang-format --dry-run -Werror
	@$(SOURCES) '*.py' '*.cpp' '*.h' '*.cu' '*.cuh' | xargs wc -l | awk '$$2 != "total" && $$1 > 600 \
	  { print $$2 ": " $$1 " lines, at most 600"; bad = 1 } END { exit bad }'

# pytest-benchmark's own options go into BENCH, for instance BENCH='--benchmark-autosave -k faiss'.
bench: $(VENV)/test-tools $(VENV)/built
	$(BENCHMARKS) $(BENCH)
	$(BIN)/python -m benchmarks.render

bench-full: $(VENV)/test-tools $(VENV)/built
	$(BENCHMARKS) --full $(BENCH)
	$(BIN)/python -m benchmarks.render
	$(BIN)/python -m benchmarks.targets

# The search and the step that leave codes out, and what they gain while a tokenizer is trained.
bench-prune: $(VENV)/test-tools $(VENV)/built
	$(BENCHMARKS) --full --threads 2 -k pruned $(BENCH)
	$(BIN)/python -m benchmarks.latents
	$(BIN)/python -m benchmarks.render
	$(BIN)/python -m benchmarks.targets

# The tests that are marked gpu first; without a green run of them nothing is measured.
bench-gpu: $(VENV)/test-tools $(VENV)/built
	$(BENCHMARKS) --device cuda $(BENCH)
	$(BIN)/python -m benchmarks.render
	$(BIN)/python -m benchmarks.targets --device cuda

# The pipeline's presets and tables on the CPU, an hour or two, and their numbers in docs.
PRESETS := photos shapes-vqvae2 tones-1d moving-digits-3d
bench-pipeline: $(VENV)/test-tools $(VENV)/built
	for preset in $(PRESETS) digits-table photos-table; do $(BIN)/vqk run $$preset || exit 1; done
	$(BIN)/python -m benchmarks.pipeline $(PRESETS:%=runs/%) runs/digits-table runs/photos-table
	$(BIN)/python -m benchmarks.render

# What trainers run into: the same probes for every quantizer, docs/trust.md from their results.
trust: $(VENV)/test-tools $(VENV)/built
	$(BIN)/python -m benchmarks.trust

# What the Triton kernels become on sm_80, sm_90 and sm_100; needs no GPU.
aot: $(VENV)/test-tools $(VENV)/built
	$(BIN)/python -m benchmarks.aot $(AOT)

# The digits figures and the picture of README.md, from a run of the demo.
readme: demo
	$(BIN)/python -m benchmarks.render --run runs/digits

check: $(VENV)/built
	$(BIN)/python -m vqkernels

clean:
	rm -rf build dist *.egg-info vqkernels/_native*.so $(VENV)/built

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(f"PYTHON must be 3.11 or newer for the pinned requirements, got {v[0]}.{v[1]}" if v < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# A stamp file per step; the seconds of installing and of building are printed apart.
$(VENV)/tools: $(BIN)/python requirements-build.txt requirements.txt
	@started=$$(date +%s); set -e; \
	$(PIP) install -q -r requirements-build.txt; \
	if $(BIN)/python -c 'import torch' 2>/dev/null; then grep -v '^torch==' requirements.txt; \
	else cat requirements.txt; fi > $(VENV)/requirements.txt; \
	$(if $(TORCH_INDEX),grep '^torch==' $(VENV)/requirements.txt | xargs -r $(PIP) install -q -i $(TORCH_INDEX);) \
	$(PIP) install -q -r $(VENV)/requirements.txt; \
	echo "install: $$(( $$(date +%s) - started )) s"
	@touch $@

$(VENV)/test-tools: $(VENV)/tools requirements-test.txt requirements-peers.txt
	@started=$$(date +%s); set -e; \
	$(PIP) install -q -r $(VENV)/requirements.txt -r requirements-test.txt; \
	$(PIP) install -q --no-deps -r requirements-peers.txt; \
	echo "install of the test tools: $$(( $$(date +%s) - started )) s"
	@touch $@

$(VENV)/built: $(VENV)/tools $(NATIVE)
	@started=$$(date +%s); set -e; \
	$(PIP) install -q --no-build-isolation --no-deps -e '.[train]'; \
	echo "build: $$(( $$(date +%s) - started )) s"
	@touch $@
