.PHONY: test e2e e2e-full dist demo docs bench bench-detect fuzz clean
PYTHON ?= python3
VENV = .venv
FAST = not engine and not root and not slow and not full
PYTEST = $(VENV)/bin/python -m pytest -q -p no:cacheprovider

# `make test` needs a shell, Python and the package index. Tests marked `engine`, `root` or `slow` are
# for `make e2e`; tests marked `full` are the long forms, for `make e2e-full` alone. setup.cfg says what each mark means.

test: $(VENV)/ready dist  ## everything that needs neither root nor Docker, on the modules and, beside it, on the stitched file
	$(VENV)/bin/python patterns.py
	DOCKERAUDIT_FORM=stitched $(PYTEST) -m "$(FAST)" >dist/stitched.log 2>&1 & stitched=$$!; \
	$(PYTEST) -m "$(FAST)"; modules=$$?; \
	wait $$stitched; stitched=$$?; echo "the stitched file:"; cat dist/stitched.log; exit $$((modules | stitched))

e2e: $(VENV)/ready dist  ## real engines, real clients, real faults; needs root
	bash e2e/run $(VENV)/bin/python -m "(engine or root or slow) and not full"

e2e-full: test  ## everything there is, for as long as it takes; needs root
	bash e2e/run $(VENV)/bin/python -m "engine or root or slow or full"

$(VENV)/ready: setup.cfg
	$(PYTHON) -m venv $(VENV)
	for try in 1 2 3 4 5; do $(VENV)/bin/pip install -q $$($(VENV)/bin/python e2e/requirements.py) && break || sleep $$((try * 3)); done
	$(VENV)/bin/python -c "import pytest, pytest_timeout, requests_unixsocket"
	touch $@

dist:  ## the one file to copy onto a host
	mkdir -p dist
	$(PYTHON) deploy/stitch.py > dist/dockeraudit.py.new
	mv dist/dockeraudit.py.new dist/dockeraudit.py

demo:  ## a few log lines with made-up secrets, through the real proxy
	$(PYTHON) e2e/demo.py

docs:  ## docs/rules.md from the table
	$(PYTHON) -m dockeraudit rules --markdown > docs/rules.md

bench: dist  ## speed against the engine directly and against peers; needs root (peers from Debian's packages)
	$(PYTHON) bench/run.py

bench-detect:  ## detection figures: make bench-detect VECTORS=DIR with vectors.jsonl.gz, score.py and adapter.py
	PATH="$$(bench/fetch-scanners):$$PATH" $(PYTHON) bench/detect.py $(VECTORS)

fuzz: $(VENV)/ready  ## parsers and classifiers, until interrupted (SECONDS=N to bound it)
	-$(VENV)/bin/pip install -q atheris  # coverage-guided where it installs; without it, seeded mutations
	$(VENV)/bin/python e2e/fuzz.py $(SECONDS)

clean:
	rm -rf $(VENV) dist build *.egg-info
