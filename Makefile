# The commands of this project; `make` alone lists them. Nothing has to be set up first: each target makes the virtual
# environment it needs, with only python3, its venv module and make on the machine.

PYTHON ?= python3
VENV ?= .venv
VENV_BIN ?= $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PY := $(VENV_BIN)/python

# Another interpreter than the one .venv was made with, asked for by name: make it anew.
INTERPRETER := $(VENV)/.interpreter
ifneq ($(origin PYTHON),file)
ifneq ($(shell cat "$(INTERPRETER)" 2>/dev/null),$(PYTHON))
.PHONY: $(INTERPRETER)
endif
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help run test fuzz faults browser autobahn soak load check format types coverage bench bench-quick docs screenshots audit clean

help:
	@echo "make TARGET, where TARGET is one of"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{ printf "  %-12s %s\n", $$1, $$2 }'

run: $(VENV)/.for-run ## Talk to an echo server that it starts; URL=ws://... for another one, ARGS="..." for options
	@"$(PY)" -m bws_cli.echo_cli $${URL:+"$$URL"} $(ARGS)

# Half of the time of the tests is programs that start and time-outs that are waited for: three files of tests at a time.
# A file stays whole, as the tests in it share servers, screens and programs. ARGS="-n 0" for one at a time.
THREE_FILES := -n 3 --dist loadfile

test: $(VENV)/.for-dev ## Run the tests, three files at a time; ARGS="..." goes to pytest
	@"$(PY)" -m pytest $(THREE_FILES) $(ARGS)

fuzz: $(VENV)/.for-dev ## Try 200,000 streams and handshakes, eight minutes of one core; EXAMPLES=... for another number
	@FUZZ_EXAMPLES=$${EXAMPLES:-200000} "$(PY)" -m pytest tests/fuzz -o timeout=0 $(ARGS)

browser: $(VENV)/.for-browser ## Run the same handlers in Chromium and with bws, and compare; ARGS="--filter close --verbose"
	@"$(PY)" -m tests.browser $(ARGS)

check: $(VENV)/.for-dev ## Look at format, style and types, change nothing
	"$(PY)" -m ruff format --check .
	"$(PY)" -m ruff check .
	"$(PY)" -m mypy

format: $(VENV)/.for-dev ## Format the code and mend what can be mended without asking
	"$(PY)" -m ruff check --fix-only .
	"$(PY)" -m ruff format .

types: $(VENV)/.for-dev ## Check the types only
	"$(PY)" -m mypy

faults: $(VENV)/.for-dev ## Try every fault of the network at every byte, a quarter of an hour, and write docs/reliability.md
	BWS_STRESS=1 BWS_FAULTS_PAGE=docs/reliability.md "$(PY)" -m pytest tests/faults $(ARGS)

coverage: $(VENV)/.for-dev ## Run the tests and fail when too little of bws/ is covered
	"$(PY)" -m coverage erase
	"$(PY)" -m coverage run -m pytest $(THREE_FILES) $(ARGS)
	"$(PY)" -m coverage combine --quiet
	"$(PY)" -m coverage report

autobahn: $(VENV)/.for-dev ## Run the Autobahn TestSuite, about 20 minutes; ARGS="--quick" for a part of it
	@"$(PY)" -m tests.conformance.autobahn $(ARGS)

bench: $(VENV)/.for-bench ## Measure bws beside other clients, about ten minutes; ARGS="..." for options
	@"$(PY)" -m benchmarks $(ARGS)

bench-quick: $(VENV)/.for-bench ## A part of it, one round, under a minute
	@"$(PY)" -m benchmarks --quick $(ARGS)

soak: $(VENV)/.for-dev ## Run 100 sockets for ten minutes and account for every message; ARGS="--seconds 20" for a short run
	@"$(PY)" -m tests.stress.soak $(ARGS)

load: $(VENV)/.for-dev ## Open 5,000 sockets at the same time, talk on all, close all; ARGS="..." for options
	@"$(PY)" -m tests.stress.load $(ARGS)

docs: $(VENV)/.for-docs ## Build the documentation into docs/_build/html; a warning is an error
	"$(PY)" -m sphinx -E -W --keep-going -q -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

screenshots: $(VENV)/.for-dev ## Make the pictures that the documentation shows (needs X)
	"$(PY)" docs/draw_parts.py docs/images
	"$(PY)" -m tests.examples.pictures docs/images
	"$(PY)" -m tests.terminal_pictures docs/images

audit: $(VENV)/.for-dev ## Look for known holes: in the code with bandit, in what it needs with pip-audit (asks pypi.org)
	"$(PY)" -m bandit --quiet --configfile pyproject.toml --recursive bws scripts
	@mkdir -p build
	"$(PY)" -m pip freeze --exclude-editable > build/installed.txt
	"$(PY)" -m pip_audit --strict --no-deps --disable-pip --requirement build/installed.txt

clean: ## Remove everything that make has made, .venv too
	rm -rf "$(VENV)" tests/browser/node_modules .autobahn build dist bws.egg-info docs/_build .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment. What pip and venv say goes to stderr, and they do not read stdin: `echo hello | make -s run`
# prints "hello" and nothing else, the first time too. A stamp is touched last, so that what was cut short is done again.
INSTALL = "$(PY)" -m pip install --quiet --disable-pip-version-check --editable
SOURCES := setup.cfg pyproject.toml

$(INTERPRETER):
	@echo "Making $(VENV) with $(PYTHON)" >&2
	@"$(PYTHON)" -m venv --clear "$(VENV)" </dev/null >&2 \
	|| { echo "The venv module is missing? On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "$(PYTHON)" > "$@"

$(VENV)/.for-run: $(INTERPRETER) $(SOURCES)
	@echo "Installing what 'make run' needs into $(VENV)" >&2
	@$(INSTALL) ".[cli]" </dev/null >&2
	@touch "$@"

$(VENV)/.for-dev: $(INTERPRETER) $(SOURCES)
	@echo "Installing the tools for development into $(VENV)" >&2
	@$(INSTALL) ".[dev]" </dev/null >&2
	@touch "$(VENV)/.for-run" "$@"

$(VENV)/.for-bench: $(VENV)/.for-dev
	@echo "Installing the clients that are measured into $(VENV)" >&2
	@$(INSTALL) ".[bench]" </dev/null >&2 || echo "picows does not install here: it is left out" >&2
	@touch "$@"

# Brython comes through npm; where npm is missing, the comparison says so.
$(VENV)/.for-browser: $(VENV)/.for-dev tests/browser/package.json
	@echo "Installing Brython and the driver of the browser" >&2
	@$(INSTALL) ".[browser]" </dev/null >&2
	@if command -v npm >/dev/null; then npm install --silent --no-audit --no-fund --no-package-lock --ignore-scripts \
	  --prefix tests/browser </dev/null >&2 && touch "$@"; fi

$(VENV)/.for-docs: $(INTERPRETER) $(SOURCES)
	@echo "Installing Sphinx into $(VENV)" >&2
	@$(INSTALL) ".[docs]" </dev/null >&2
	@touch "$@"
