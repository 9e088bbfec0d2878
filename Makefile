# make audit and make test are all a newcomer needs; both make the environment they use.
VENV := .venv
PYTHON := $(VENV)/bin/python
BASE_PYTHON ?= python3
# One process per processor, each with neighbouring tests; the first to finish takes over some.
SIDE_BY_SIDE := --numprocesses logical --dist worksteal
SAMPLE := sample_models/lenet_main.onnx

.PHONY: audit test test-slow lint docs bench clean

audit: $(VENV)/.installed-confirm
	@# The sample leaks, so the audit ends with 1, "findings": anything else is a failure here.
	$(VENV)/bin/leakaudit check $(SAMPLE); test $$? -eq 1

test: $(VENV)/.installed-dev
	$(PYTHON) -m pytest $(SIDE_BY_SIDE)

test-slow: $(VENV)/.installed-dev
	$(PYTHON) -m pytest $(SIDE_BY_SIDE) -m slow

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The generated parts of README.md, and rules/README.md. The tests say when they are not current.
docs: $(VENV)/.installed-dev
	$(PYTHON) tests/support/generated_docs.py

# About a minute; leave the options out for the whole comparison.
bench: $(VENV)/.installed-bench
	$(VENV)/bin/leakaudit bench table --networks lenet_dlg --images 1 --iterations 30

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(PYTHON):
	$(BASE_PYTHON) -c 'import sys; sys.exit("leakaudit needs Python 3.11 or later, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(BASE_PYTHON) -m venv $(VENV)

# torch first, pinned: left to the resolver, an open range can bring in gigabytes of GPU libraries.
$(VENV)/.installed-confirm: $(PYTHON) pyproject.toml constraints.txt
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[confirm]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-confirm
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-confirm
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	touch $@
