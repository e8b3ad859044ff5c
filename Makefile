.PHONY: help lint test e2e e2e-full dist release demo docs bench bench-detect fuzz clean
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV = .venv
PYTEST = $(VENV)/bin/python -m pytest -q -p no:cacheprovider

# setup.cfg says what each mark of a test means. Everything that a test needs is installed into
# $(VENV), and by `make e2e` also as Debian packages.
FAST = not (engine or root or slow or full)
SLOW = (engine or root or slow) and not full
LONG = engine or root or slow or full

# These read sources and pages, or build a release: the same whichever form the tests import. They
# run once, beside the others, which run on the modules and on the stitched file.
ONCE = tests/test_docs.py tests/test_layers.py tests/test_release.py
TWICE = $(PYTEST) -m "$(FAST)" $(ONCE:%=--ignore=%)

help:  ## this list
	@awk -F ':[^#]*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

lint: $(VENV)/ready  ## ruff and mypy, neither of which may find anything (Python 3.10 or newer)
	@$(VENV)/bin/ruff check --quiet
	@$(VENV)/bin/ruff format --check --quiet
	@$(VENV)/bin/mypy --no-error-summary

test: $(VENV)/ready dist  ## tests without root or Docker, on the modules and the stitched file
	@$(VENV)/bin/python patterns.py
	@DOCKERAUDIT_FORM=stitched $(TWICE) >dist/stitched.log 2>&1 & stitched=$$!; \
	$(PYTEST) -m "$(FAST)" $(ONCE) >dist/once.log 2>&1 & once=$$!; \
	$(TWICE); modules=$$?; \
	told() { if wait $$2; then echo "$$3: $$(tail -n 1 dist/$$1.log)"; \
	else cat dist/$$1.log; echo "the tests above failed: $$3"; modules=1; fi; }; \
	told once $$once "pages and releases"; told stitched $$stitched "the stitched file"; \
	exit $$modules

e2e: $(VENV)/ready dist  ## real engines, real clients, real faults; needs root
	@bash e2e/run $(VENV)/bin/python -m "$(SLOW)"

e2e-full: test  ## everything there is, for as long as it takes; needs root
	@bash e2e/run $(VENV)/bin/python -m "$(LONG)"

$(VENV)/ready: setup.cfg
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python e2e/requirements.py test > $(VENV)/requirements.txt
	@for try in 1 2 3 4 5; do \
	$(VENV)/bin/pip install -q --disable-pip-version-check -r $(VENV)/requirements.txt && break; \
	echo "pip install failed, attempt $$try of 5" >&2; sleep $$((try * 3)); done
	@$(VENV)/bin/python -c "import pytest, pytest_timeout, requests_unixsocket"
	@touch $@

dist:  ## dist/dockeraudit.py, the one file to copy onto a host
	@mkdir -p dist
	@$(PYTHON) deploy/stitch.py > dist/dockeraudit.py.new
	@mv dist/dockeraudit.py.new dist/dockeraudit.py

release:  ## dist/: wheel, sdist, single file, bill of materials, SHA256SUMS; always the same bytes
	@$(PYTHON) deploy/release.py dist
	@cd dist && sha256sum --check --quiet SHA256SUMS

demo:  ## a few log lines with made-up secrets, through the real proxy
	@$(PYTHON) e2e/demo.py

docs:  ## write docs/rules.md from the table of rules
	@$(PYTHON) -m dockeraudit rules --markdown > docs/rules.md

bench:  ## speed beside the engine alone and other proxies; needs root and Debian's packages
	@$(PYTHON) bench/run.py

bench-detect:  ## detection figures: VECTORS=DIR with vectors.jsonl.gz, score.py and adapter.py
	@PATH="$$(bench/fetch-scanners):$$PATH" $(PYTHON) bench/detect.py $(VECTORS)

fuzz: $(VENV)/ready  ## parsers and classifiers, until interrupted (SECONDS=N to end by itself)
	@$(VENV)/bin/pip install -q atheris || echo "no atheris here: seeded mutations instead" >&2
	@$(VENV)/bin/python e2e/fuzz.py $(SECONDS)

clean:  ## remove everything that make has made
	rm -rf $(VENV) dist build *.egg-info
