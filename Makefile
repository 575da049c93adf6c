# GNU make. `make` alone lists the targets.
#
# Everything goes into .venv; nothing outside this folder is changed.

PYTHON ?= python3
# where pip takes PyTorch from; empty means PyPI
TORCH_INDEX ?=
IN ?= samples/photo.png
SCALE ?= 4
# the most tests at once; each wants a core and up to 2 GiB of memory
JOBS ?= 4

venv := .venv
# relative, because pip splits these variables at spaces and the checkout's path may have some;
# the second is what pip >= 25 reads for its isolated builds
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# recipes read these from the environment, so that a file name may hold any character
export IN SCALE TORCH_INDEX

pip := $(venv)/bin/python -m pip install --no-input -c constraints.txt
from_torch_index := $(if $(TORCH_INDEX),--index-url "$$TORCH_INDEX")
at_once := -n logical --maxprocesses $(JOBS) --dist worksteal
one_thread := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
metadata := setup.cfg setup.py pyproject.toml constraints.txt $(wildcard kernels/native/*)

.DEFAULT_GOAL := help
.PHONY: help install install-dev upscale test test-all check wheel clean

help:
	@echo 'make upscale    install into .venv, then enlarge IN (default: $(IN)) SCALE times (2 or 4)'
	@echo '                with the built-in model; no download but the packages; writes to results/'
	@echo 'make test       the fast tests'
	@echo 'make test-all   all tests'
	@echo 'make check      format, lint, types, layout and duplicates'
	@echo 'make wheel      build the wheel, install it elsewhere and try it'
	@echo 'make install    only install; .venv/bin/restore is the program'
	@echo 'make clean      remove .venv and what builds and tests left'
	@echo
	@echo 'PYTHON=python3.12      another Python (3.10 or newer)'
	@echo 'JOBS=1                 how many tests run at once (default: a core each, 4 at most)'
	@echo 'TORCH_INDEX=URL        another source of PyTorch;'
	@echo '                       https://download.pytorch.org/whl/cpu avoids gigabytes of CUDA'

$(venv)/installed: $(metadata)
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "make: no program '$(PYTHON)': install Python 3.10 or newer, or name one with PYTHON=" >&2; \
		exit 1; }
	@"$(PYTHON)" scripts/preflight.py . "$$TORCH_INDEX"
	"$(PYTHON)" -m venv $(venv)
	$(pip) $(from_torch_index) torch
	$(pip) -e .
	@touch $@

$(venv)/installed-dev: $(venv)/installed
	$(pip) $(from_torch_index) torch torchvision
	$(pip) -e '.[test,dev]' 'setuptools>=77'
# its isolated build would download PyTorch once more; of what it lists the tests need nothing else
	@if $(venv)/bin/python -c 'import sys; sys.exit(sys.version_info >= (3, 13))'; then \
		$(pip) --no-build-isolation --no-deps basicsr==1.4.2; \
	else echo 'make: Python 3.13 and newer cannot build BasicSR: its tests are skipped'; fi
	@touch $@

install: $(venv)/installed

install-dev: $(venv)/installed-dev

upscale: $(venv)/installed
	@case "$$SCALE" in 2|4) ;; *) \
		echo "make upscale: SCALE is '$$SCALE'; the built-in models enlarge 2 or 4 times" >&2; \
		exit 2;; esac
	@test -f "$$IN" || { echo "make upscale: no file '$$IN'; name a picture with IN=photo.jpg" >&2; exit 2; }
	@$(venv)/bin/restore upscale -i "$$IN" -o results --scale "$$SCALE" --suffix "_x$$SCALE" --ext png --compare

test: $(venv)/installed-dev
	$(one_thread) $(venv)/bin/python -m pytest -q $(at_once) -m 'not slow'

test-all: $(venv)/installed-dev
	$(one_thread) $(venv)/bin/python -m pytest -q $(at_once)

check: $(venv)/installed-dev
	$(one_thread) PYTHON=$(venv)/bin/python scripts/check

wheel: $(venv)/installed-dev
	$(venv)/bin/python scripts/smoke_wheel.py --keep dist

clean:
	rm -rf $(venv) build dist *.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
