.PHONY: test e2e e2e-full dist demo bench-detect docs clean
PYTHON ?= python3
VENV = .venv
PYTEST = $(VENV)/bin/python -m pytest -q -p no:cacheprovider
UNIT = test_dockeraudit.py test_patterns.py test_policy.py test_report.py e2e/test_scripted.py

$(VENV)/ready: setup.cfg
	$(PYTHON) -m venv $(VENV)
	for try in 1 2 3 4 5; do $(VENV)/bin/pip install -q pytest pytest-timeout requests-unixsocket && break || sleep $$((try * 3)); done
	$(VENV)/bin/python -c "import pytest, pytest_timeout, requests_unixsocket"
	touch $@

test: $(VENV)/ready dist  ## everything that needs neither root nor Docker, on the modules and on the stitched file
	$(VENV)/bin/python patterns.py
	$(PYTEST) $(UNIT)
	DOCKERAUDIT_FORM=stitched $(PYTEST) $(UNIT)

e2e: $(VENV)/ready dist  ## real engines and real clients; needs root
	bash e2e/run $(VENV)/bin/python

e2e-full: test e2e  ## everything

dist:  ## the one file to copy onto a host
	mkdir -p dist
	$(PYTHON) deploy/stitch.py > dist/dockeraudit.py.new
	mv dist/dockeraudit.py.new dist/dockeraudit.py

demo:  ## a few log lines with made-up secrets, through the real proxy
	$(PYTHON) e2e/demo.py

docs:  ## docs/rules.md from the table
	$(PYTHON) -m dockeraudit rules --markdown > docs/rules.md

bench-detect:  ## detection figures: make bench-detect VECTORS=DIR with vectors.jsonl.gz, score.py and adapter.py
	$(PYTHON) $(VECTORS)/score.py -- $(PYTHON) $(VECTORS)/adapter.py

clean:
	rm -rf $(VENV) dist build *.egg-info
