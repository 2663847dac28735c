# make demo   the whole pipeline on the sample corpus        make ui     browse what it tracked
# make test   lint, type check, tests                        make lock   renew requirements.lock
# make test-all   with the tests that take minutes: pipelines and sweeps that are killed again and again
# make docker-test   check docker/, build the image and run it
# make chaos   take a cluster of several computers apart while a pipeline works on it, and see that nothing is lost
# make docs   the manual, in docs/_build/index.html         make audit  known flaws of the pinned packages
# make bench  measure against the peers' tools; tables in tests/benchmarks/results (bench-gpu: only what runs on a GPU)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := uv==0.13.8
BENCHMARKS := $(filter-out %/harness.py %/image_server.py %/test_benchmarks.py,$(wildcard tests/benchmarks/*.py))

.PHONY: demo test test-all lint docs audit bench bench-gpu docker-test chaos ui lock clean

demo: $(VENV)/ready
	$(BIN)/vlp run conf/pipeline/demo.yaml conf/machine/laptop.yaml

test: lint
	$(BIN)/pytest -n logical -m "not slow"

test-all: lint
	$(BIN)/pytest -n logical

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: $(VENV)/ready
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build

audit: $(VENV)/ready
	$(BIN)/pip-audit --strict --requirement requirements.lock --disable-pip --no-deps

bench: $(VENV)/ready
	@for script in $(BENCHMARKS); do echo "[bench] $$script"; $(BIN)/python $$script || exit 1; done

bench-gpu: $(VENV)/ready
	@for script in step reconstruction_step superclass_loss; do \
		$(BIN)/python tests/benchmarks/$$script.py --device cuda || exit 1; done

docker-test: $(VENV)/ready
	docker/test.sh

chaos: $(VENV)/ready
	$(BIN)/python -m tests.drills.recovery

ui: $(VENV)/ready
	$(BIN)/vlp ui

# Bytecode is compiled once: Ray starts many processes, and each would compile every module again. uv passes over
# files of packages that this Python cannot read; ours have to compile.
$(VENV)/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "vlp needs Python 3.11, 3.12 or 3.13; name one with: make PYTHON=python3.12 ...")'
	@echo "[setup] installing the pinned packages into $(VENV)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(UV)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	$(BIN)/python -m compileall -q vlp pipelines
	@touch $@

lock: $(VENV)/ready
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --extra docs --extra export --extra server --no-emit-index-url \
		--custom-compile-command "make lock" --no-annotate --upgrade pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) results
