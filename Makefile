# Every target sets up what it needs in .venv. PYTHON chooses the interpreter: make test PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.ready
# what runs on the GPU: multi is ONNX Runtime, fused operators and NCCL, tensorrt TensorRT; make test-gpu GPU_EXTRAS=tensorrt
GPU_EXTRAS ?= multi
GPU_VENV := .venv-$(GPU_EXTRAS)
GPU_SETUP := $(GPU_VENV)/.ready
RAY_VENV := .venv-ray
RAY_SETUP := $(RAY_VENV)/.ready
LPIPS_FOLDER := .venv-lpips
LPIPS_SETUP := $(LPIPS_FOLDER)/.ready
# a test process per core, of one thread each; files stay whole, so that what a file's tests share is made once
PARALLEL := --numprocesses auto --dist loadfile --no-loadscope-reorder

.PHONY: setup demo test suite check browser check-slow check-ray check-lpips first-hour fuzz extras docs test-gpu lint types wheel clean

setup: $(SETUP)

# torch first and pinned: what comes after accepts it, and a find-links folder can offer its CPU build
$(SETUP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $(SETUP)

demo: $(SETUP)
	$(BIN)/kontext-trt demo demo --checkpoint examples/small_kontext/checkpoint \
		--image docs/small-kontext/before.png --prompt "turn the orange hexagon black" --steps 28

# pyright is one process, so it runs beside the tests
test: $(SETUP)
	$(MAKE) --no-print-directory --jobs 3 lint types suite

# on a CPU, also where there is a GPU
suite: $(SETUP)
	CUDA_VISIBLE_DEVICES= $(BIN)/python -m pytest $(PARALLEL)

# what takes longer: whole tables of which the tests take a tenth
check: docs extras browser check-slow check-ray check-lpips

check-slow: $(SETUP)
	CUDA_VISIBLE_DEVICES= $(BIN)/python -m pytest $(PARALLEL) -m "check and not alone"
	CUDA_VISIBLE_DEVICES= $(BIN)/python -m pytest -m "check and alone"

# for the playground's tests; elsewhere than on Debian, install Chromium by hand
browser: $(SETUP)
	command -v chromium || command -v chromium-browser || command -v google-chrome || \
		{ $$([ "$$(id -u)" = 0 ] || echo sudo) apt-get update && \
		$$([ "$$(id -u)" = 0 ] || echo sudo) apt-get install --yes chromium; }

# Ray brings 45 packages of its own, so what needs it has an environment of its own
$(RAY_SETUP): pyproject.toml
	$(PYTHON) -m venv $(RAY_VENV)
	$(RAY_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(RAY_VENV)/bin/python -m pip install --quiet "torch==2.13.0"
	$(RAY_VENV)/bin/python -m pip install --quiet --editable ".[dev,ray]"
	touch $(RAY_SETUP)

check-ray: $(RAY_SETUP)
	CUDA_VISIBLE_DEVICES= $(RAY_VENV)/bin/python -m pytest -m check tests/ray

# types what newcomers type, in fresh environments, and writes docs/tutorial-first-hour.md if it says something else
first-hour: $(SETUP)
	PYTHONPATH=.links $(BIN)/python -m kontext_trt.examples.first_hour --write

# beside torch's CPU build torchvision cannot load its operators, and transformers would try: so it lies apart
$(LPIPS_SETUP): pyproject.toml $(SETUP)
	rm -rf $(LPIPS_FOLDER)
	$(BIN)/python -m pip install --quiet --no-deps --target $(LPIPS_FOLDER) "lpips==0.1.4" "torchvision==0.28.0"
	touch $(LPIPS_SETUP)

check-lpips: $(LPIPS_SETUP)
	CUDA_VISIBLE_DEVICES= PYTHONPATH=$(LPIPS_FOLDER) $(BIN)/python -m pytest -m check tests/lpips

# hostile bundles beyond those of test and check
CASES ?= 10000
fuzz: $(SETUP)
	KONTEXT_TRT_FUZZ_CASES=$(CASES) $(BIN)/python -m pytest -s -m check tests/whole/test_hostile_bundles.py

# each extra by itself, as an installer would choose its packages; tensorrt's are built from NVIDIA's own index
extras: $(SETUP)
	for extra in cpu gpu fused multi rtx export quantize gguf c2pa serve ray report lpips docs; do \
		$(BIN)/python -m pip install --quiet --dry-run --ignore-installed "torch==2.13.0" ".[$$extra]" || exit 1; \
	done

# onnxruntime-gpu cannot be installed beside onnxruntime, so these have an environment of their own
$(GPU_SETUP): pyproject.toml
	$(PYTHON) -m venv $(GPU_VENV)
	$(GPU_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(GPU_VENV)/bin/python -m pip install --quiet "torch==2.13.0"
	$(GPU_VENV)/bin/python -m pip install --quiet --editable ".[quantize,$(GPU_EXTRAS)]" "pytest>=8"
	touch $(GPU_SETUP)

test-gpu: $(GPU_SETUP)
	KONTEXT_TRT_REQUIRE_GPU=1 $(GPU_VENV)/bin/python -m pytest tests/gpu

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(SETUP)
	$(BIN)/pyright --pythonpath $(BIN)/python

# into site/; warnings are errors, and nothing is fetched
docs: $(SETUP)
	$(BIN)/python docs/generate/command_line.py
	$(BIN)/python docs/generate/python_names.py
	$(BIN)/zensical build --clean --strict

wheel: $(SETUP)
	$(BIN)/python -m build --wheel --outdir dist

clean:
	rm -rf $(VENV) .venv-* build dist demo site *.egg-info .pytest_cache .ruff_cache
