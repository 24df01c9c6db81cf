# make demo and make test are all that most people need; each sets up .venv first if it is not there.

PYTHON ?= python3
RUN := .venv/bin/python
INSTALLED := .venv/installed

.PHONY: demo test test-slow lint format setup clean

setup: $(INSTALLED)

# Where the system's Python lacks ensurepip (Debian without python3-venv), its own pip fills the environment instead.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "transformer2017 needs Python 3.10 or newer: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv || $(PYTHON) -m venv --clear --without-pip .venv
	$(RUN) -m pip --version >/dev/null 2>&1 \
		&& $(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[demo,test]' \
		|| $(PYTHON) -m pip --python $(RUN) install --quiet --constraint constraints.txt --editable '.[demo,test]'
	touch $@

demo: $(INSTALLED)
	.venv/bin/transformer2017 demo

test: $(INSTALLED)
	$(RUN) -m pytest -q -m "not slow"

test-slow: $(INSTALLED)
	$(RUN) -m pytest -q -m slow

lint: $(INSTALLED)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: $(INSTALLED)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf .venv build dist *.egg-info
