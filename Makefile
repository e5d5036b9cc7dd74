# Every target sets up what it needs by itself; the second time that costs nothing.
.DEFAULT_GOAL := help
PYTHON ?= python3
DATABASE ?= sqlite
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1 \2/p' $(MAKEFILE_LIST) | while read name text; do printf 'make %-10s %s\n' "$$name" "$$text"; done

demo: $(READY)  ## a Flask app under gunicorn and a changing load, shown on a page (DATABASE=sqlite|mysql|postgresql, or DATABASE_URL; KEEP=1)
	$(PY) examples/demo.py $(DATABASE) $(if $(KEEP),--keep)

test: $(READY)  ## all tests, against real MariaDB, PostgreSQL and SQLite
	-@$(PY) -m tools.system_packages mariadb postgresql prometheus pgbouncer haproxy stunnel chromium
	tools/run_tests.sh $(PY)

check: $(READY)  ## ruff, mypy --strict, import-linter, doctest
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports
	$(PY) -m pytest -q --doctest-modules -p no:randomly --ignore-glob='geventpool/django/*gis*' geventpool || [ $$? = 5 ]  # 5: there are no doctests

peers: $(READY)  ## the tests of SQLAlchemy, Flask-SQLAlchemy and Django, on our pool and on their own, at length
	-@$(PY) -m tools.system_packages mariadb postgresql
	GEVENTPOOL_PEERS_WHOLE=1 $(PY) -m pytest -v -o faulthandler_timeout=0 tests/peers

matrix: $(READY)  ## unit, property and peer tests on Python 3.10-3.13 x SQLAlchemy 1.4, 2.0 and 2.1
	rm -f .cache/seen.jsonl
	$(VENV)/bin/nox; ended=$$?; $(PY) -m tools.support_table .cache/seen.jsonl; exit $$ended

bench: $(READY)  ## what is claimed of speed, each beside its peers in one run (ARGS=--quick for a first look)
	-@$(PY) -m tools.system_packages mariadb postgresql
	$(PY) -m benchmarks $(ARGS)

stress: $(READY)  ## kill sweep, property tests and all scenarios at length, beside the other pools (tests/stress/RESULTS.md)
	-@$(PY) -m tools.system_packages mariadb postgresql
	GEVENTPOOL_STRESS=1 GEVENTPOOL_EXAMPLES=2000 $(PY) -m pytest -q tests/stress tests/property/test_pool.py tests/property/test_ledger.py
	$(PY) -m tests.stress.scenarios
	GEVENTPOOL_STRESS=1 $(PY) -m pytest -q tests/integration/test_gunicorn_in_earnest.py \
		tests/integration/test_loadtests.py tests/integration/test_examples.py
	$(MAKE) soak

loadtest: $(READY)  ## a day's load on each pool in turn, and a report as one page (QUICK=1, DATABASE=postgresql, ARGS=…)
	$(PY) -m loadtests compare --database $(DATABASE:sqlite=mysql) $(if $(QUICK),--quick) $(ARGS)

soak: $(READY)  ## 30 minutes of load, in which nothing may grow (ARGS='--minutes 3')
	$(PY) -m loadtests soak --database $(DATABASE:sqlite=mysql) $(ARGS)

release: $(READY)  ## builds the distributions, checks them, and says what is left to do (GEVENTPOOL_URL=https://…)
	$(PY) -m tools.release

docs: $(READY)  ## the documentation as a site, in build/docs: a dead link is an error
	$(PY) -m tools.docs_tables
	$(PY) -m tools.docs_site

plots: $(READY)  ## draws the plots of docs/
	$(PY) docs/plots/make_plots.py

clean:  ## removes what was made, but not the sources' pictures
	rm -rf $(VENV) dist loadtests/report .cache .nox .mypy_cache .ruff_cache .pytest_cache .hypothesis build geventpool.egg-info

$(READY): setup.py pyproject.toml tools/make_venv.sh
	PYTHON=$(PYTHON) tools/make_venv.sh $(VENV)
	@touch $@

.PHONY: help demo test check peers matrix bench stress loadtest soak release docs plots clean
