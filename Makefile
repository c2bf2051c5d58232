# Everything runs in .venv, which is made anew when pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin
# Most tests wait for servers and clocks: three files at a time take half as long, on two cores too. In the order in which they
# stand, so that the long ones of tests/acceptance do not come last.
WORKERS ?= 3

.PHONY: up test check install stubs format clean

up: install
	@$(BIN)/demur up

test: install
	@$(BIN)/python tests/browser.py
	@$(BIN)/python tests/servers.py
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python proto/generate.py --check
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

install: .venv/installed

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Demur needs Python >= 3.11, this is %d.%d; name another: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv || { rm -rf .venv; \
	  echo "no virtual environment was made; Debian and Ubuntu have what it takes in the package python3-venv" >&2; exit 1; }
	@echo "installing into .venv (about a minute, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@

stubs: install
	$(BIN)/python proto/generate.py

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv
