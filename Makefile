# Each target sets up what it needs. PYTHON is the interpreter that creates the virtual environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# `make demo` and `make dev` need fewer packages than the tests; DEMO_READY and READY say which are installed.
READY := $(VENV)/.ready
DEMO_READY := $(VENV)/.demo-ready
# More workers than the two cores that CI has, because many tests wait. Each has its own servers, and the tests of a file
# stay on one worker.
PYTEST ?= -n 4 --dist loadfile
# `make test-slow PART=3/8` runs the third eighth of the slow tier.
PART ?=
COMMA := ,
# Compiled code is kept: without it, every process that a test or the demo starts would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup check test test-fast test-slow test-dagster browser bench demo dev chaos format constraints clean

# Compiles with all cores and without the packages' own tests, in half of pip's time.
define install
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the dependencies of pyproject.toml, pinned by constraints.txt ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[$(1)]'
	@$(BIN)/python -m compileall -q -j 0 -x '/tests/' $(VENV)/lib || echo "Python compiles the rest when it is imported."
endef

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(call install,sandbox$(COMMA)development)
	@touch $(DEMO_READY) $(READY)

$(DEMO_READY): pyproject.toml constraints.txt
	$(call install,sandbox)
	@touch $(DEMO_READY)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The tiers: docs/development.md.
test: setup browser
	$(BIN)/pytest $(PYTEST)

test-fast: setup
	$(BIN)/pytest $(PYTEST) --tier=fast

# The long versions, and every test of a daemon once more with Dagster's own launcher.
test-slow: setup browser
	$(BIN)/pytest $(PYTEST) --tier=slow $(if $(PART),--part=$(PART))
	$(BIN)/pytest $(PYTEST) --launcher=default -m daemon $(if $(PART),--part=$(PART))

# The tests of what depends on Dagster, against another version of it: `make test-dagster VERSION=1.13.15`. Everything else
# has the pinned version; dagster-postgres and the others follow from Dagster's.
TESTS := seedtrust_ops_tests
DECLARATIONS_TEST := $(TESTS)/test_declarations.py
DAGSTER_TESTS := $(addprefix $(TESTS)/,launcher supervisor monitoring orchestration test_dagster_instance.py \
	test_dagster_internals.py) $(DECLARATIONS_TEST)
test-dagster:
	@test -n "$(VERSION)" || { echo "Which version of Dagster? For example: make test-dagster VERSION=1.13.15"; exit 1; }
	@$(MAKE) --no-print-directory VENV=.venv-dagster-$(VERSION) .venv-dagster-$(VERSION)/.dagster-ready
	.venv-dagster-$(VERSION)/bin/pytest $(PYTEST) $(DAGSTER_TESTS)

# Run by `test-dagster`, with its own VENV. Older versions of Dagster's `dg` need an older tomlkit, which nothing else uses.
$(VENV)/.dagster-ready: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@grep -vE '^(dagster|tomlkit)' constraints.txt > $(VENV)/constraints.txt
	@echo "Installing Dagster $(VERSION) and the other dependencies into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint $(VENV)/constraints.txt \
	'dagster==$(VERSION)' --editable '.[sandbox,development]'
	@$(BIN)/python -m compileall -q -j 0 -x '/tests/' $(VENV)/lib || echo "Python compiles the rest when it is imported."
	@touch $@

# The browser tests need Chromium on this machine; without it they fail and say so.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	{ [ "$$(id -u)" = 0 ] && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } || \
	echo "No browser is installed, and the UI tests need one: install it with 'sudo apt-get install chromium'." >&2

demo: $(DEMO_READY)
	$(BIN)/seedtrust-ops demo

dev: $(DEMO_READY)
	$(BIN)/seedtrust-ops dev

# Every crash, fault and race, as a table in docs/safety.md with the date and the seed.
SEED ?= 1
chaos: setup
	$(BIN)/python -m seedtrust_ops_tests.chaos --seed $(SEED)

# SeedTrust Ops compared with stock Dagster and Huey, about 35 minutes: bench/results.md. PARTS="a c" measures only those
# parts and keeps the others; LARGE=1 adds 10,000 transactions and 1,000,000 rows and takes an hour and a half.
bench: setup
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[sandbox,development,bench]'
	$(BIN)/python -m bench $(PARTS) $(if $(LARGE),--large)

# Pins every version, without download addresses.
constraints:
	uv pip compile --universal --no-emit-index-url --no-annotate --python-version 3.11 --extra sandbox --extra development --extra ecs --extra kubernetes --extra bench pyproject.toml -o constraints.txt

clean:
	rm -rf $(VENV) .venv-dagster-* .seedtrust build dist *.egg-info
