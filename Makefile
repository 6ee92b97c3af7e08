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
# Compiled code is kept: without it, every process that a test or the demo starts would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup check test test-fast test-slow test-dagster test-postgres browser pgbouncer bench demo dev chaos format lock audit clean

PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-compile
LOCK := $(wildcard requirements/*.txt)
COMPILE := $(BIN)/python -m compileall -q -j 0 -x '/tests/' $(VENV)/lib || echo "Python compiles the rest when it is imported."

# Only files with the hashes of the lock are installed, and nothing is built but this project, with the setuptools of the
# lock, which warns of every editable installation. Compiles with all cores and without the packages' own tests, in half
# of pip's time.
define install
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the packages of requirements/$(1).txt, which pip lists as it goes:"
	@$(PIP) --require-hashes --no-deps --only-binary :all: --requirement requirements/$(1).txt
	@PYTHONWARNINGS=ignore $(PIP) --quiet --no-deps --no-build-isolation --editable .
	@$(COMPILE)
endef

setup: $(READY)

$(READY): pyproject.toml $(LOCK)
	$(call install,development)
	@touch $(DEMO_READY) $(READY)

$(DEMO_READY): pyproject.toml $(LOCK)
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
test: setup browser pgbouncer
	$(BIN)/pytest $(PYTEST)

test-fast: setup
	$(BIN)/pytest $(PYTEST) --tier=fast

# The long versions, and every test of a daemon once more with Dagster's own launcher.
test-slow: setup browser pgbouncer
	$(BIN)/pytest $(PYTEST) --tier=slow $(if $(PART),--part=$(PART))
	$(BIN)/pytest $(PYTEST) --launcher=default -m daemon $(if $(PART),--part=$(PART))

# The tests of what depends on Dagster, against another version of it: `make test-dagster VERSION=1.13.15`. Everything else
# has the pinned version; dagster-postgres and the others follow from Dagster's.
TESTS := seedtrust_ops_tests
DECLARATIONS_TEST := $(TESTS)/test_declarations.py
DAGSTER_TESTS := $(addprefix $(TESTS)/,launcher supervisor monitoring orchestration web test_dagster_instance.py \
	test_dagster_internals.py) $(DECLARATIONS_TEST)
test-dagster:
	@test -n "$(VERSION)" || { echo "Which version of Dagster? For example: make test-dagster VERSION=1.13.15"; exit 1; }
	@$(MAKE) --no-print-directory VENV=.venv-dagster-$(VERSION) .venv-dagster-$(VERSION)/.dagster-ready
	.venv-dagster-$(VERSION)/bin/pytest $(PYTEST) $(DAGSTER_TESTS)

# The tests of the database and of the rules on it, against the programs of another PostgreSQL:
# `make test-postgres PROGRAMS=/usr/lib/postgresql/15/bin`. The embedded server's package also has version 16.
test-postgres: setup
	@test -x "$(PROGRAMS)/initdb" || { echo "Where are the programs of that PostgreSQL? For example:"; \
	echo "make test-postgres PROGRAMS=/usr/lib/postgresql/15/bin"; exit 1; }
	$(BIN)/pytest $(PYTEST) --tier=fast --postgres=$(PROGRAMS) $(addprefix $(TESTS)/,database deploy domain migrations jobs)

# Run by `test-dagster`, with its own VENV. The lock has no hashes of other versions, so here only versions are pinned.
# Older versions of Dagster's `dg` need an older tomlkit, which nothing else uses.
$(VENV)/.dagster-ready: pyproject.toml $(LOCK)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@sed -n 's/^\([a-z0-9].*\) \\$$/\1/p' $(LOCK) | grep -vE '^(dagster|tomlkit)' > $(VENV)/constraints.txt
	@echo "Installing Dagster $(VERSION) and the other dependencies into $(VENV) ..."
	@$(PIP) --quiet --constraint $(VENV)/constraints.txt 'dagster==$(VERSION)' --editable '.[sandbox,development]'
	@$(COMPILE)
	@touch $@

# What the tests need of this machine; without it they fail and say so. Root is asked before a package is installed, or
# where nobody can answer, as in CI, told.
define install_package
	@{ $(foreach program,$(1),command -v $(program) ||) false; } >/dev/null || \
	{ [ "$$(id -u)" = 0 ] && if [ -t 0 ]; then \
	printf "$(3) Install $(4) with apt-get? [y/N] " && read -r answer && [ "$$answer" = y ]; \
	else echo "$(3) Installing $(4) with apt-get."; fi && \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(2); } || \
	echo "$(3) Install $(4) with 'sudo apt-get install $(2)'." >&2
endef

browser:
	$(call install_package,chromium chromium-browser google-chrome,chromium,The UI tests need a browser.,Chromium)

pgbouncer:
	$(call install_package,pgbouncer /usr/sbin/pgbouncer,pgbouncer,The database tests need a pooler.,PgBouncer)

demo: $(DEMO_READY)
	$(BIN)/seedtrust-ops demo

# `make dev VERBOSE=1` prints every line of the programs.
dev: $(DEMO_READY)
	$(BIN)/seedtrust-ops dev $(if $(VERBOSE),--verbose)

# Every crash, fault and race, as a table in docs/safety.md with the date and the seed.
SEED ?= 1
chaos: setup
	$(BIN)/python -m seedtrust_ops_tests.chaos --seed $(SEED)

# SeedTrust Ops compared with stock Dagster and Huey, about 35 minutes: bench/results.md. PARTS="a c" measures only those
# parts and keeps the others; LARGE=1 adds 10,000 transactions and 1,000,000 rows and takes an hour and a half.
bench: setup
	@$(PIP) --quiet --require-hashes --no-deps --only-binary :all: --requirement requirements/bench.txt
	$(BIN)/python -m bench $(PARTS) $(if $(LARGE),--large)

# Pins every version and hash in requirements/: `make lock UPGRADE="--upgrade-package NAME"`. Needs uv.
lock:
	$(PYTHON) requirements/lock.py $(UPGRADE)

# The pinned versions against known vulnerabilities. Where no advisories can be reached, it says so.
audit: setup
	@$(PIP) --quiet --require-hashes --no-deps --only-binary :all: --requirement requirements/audit.txt
	@$(BIN)/python requirements/audit.py

clean:
	rm -rf $(VENV) .venv-dagster-* .seedtrust build dist *.egg-info
