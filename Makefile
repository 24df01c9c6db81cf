# make demo and make test are all that most people need; each sets up .venv first if it is not there.

PYTHON ?= python3
RUN := .venv/bin/python
# A file's tests stay in one process, as they share what they train.
QUICK := -q -m "not slow and not faults" --numprocesses logical --maxprocesses 4 --dist loadfile

.PHONY: demo test test-slow test-lowest test-newest faults fuzz lint format clean

# Threads that wait do not hold a core that another process could have (docs/training-speed.md).
demo: .venv/ready-demo
	GOMP_SPINCOUNT=1000 .venv/bin/transformer2017 demo

test: .venv/ready-test
	$(RUN) -m pytest $(QUICK)

test-slow: .venv/ready-test
	$(RUN) -m pytest -q -m slow

# Installs the package with one of its extras (demo, test) under the exact versions that the tests ran with.
# Where the system's Python lacks ensurepip (Debian without python3-venv), its own pip fills the environment instead.
.venv/ready-%: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "transformer2017 needs Python 3.10 or newer, as in: make PYTHON=python3.12"; exit 1; }
	@test -x $(RUN) || $(PYTHON) -m venv .venv || $(PYTHON) -m venv --clear --without-pip .venv
	@echo "Installing into .venv; this takes some minutes the first time."
	@if $(RUN) -m pip --version >/dev/null 2>&1; then pip="$(RUN) -m pip"; else pip="$(PYTHON) -m pip --python $(RUN)"; fi; \
		$$pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$*]'
	@touch $@

# The matrix of faults, with a table at its end: 50 kills among them. Some need root, to mount a small file system.
faults: .venv/ready-test
	$(RUN) -m pytest -q -m faults tests/faults

# The same tests with the oldest versions that pyproject.toml allows, and with the newest that exist, each in an
# environment of its own. uv finds the oldest; torch is some gigabytes.
test-lowest test-newest: test-%:
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-$*/bin/uv pip install --quiet --python .venv-$*/bin/python --editable '.[test]' \
		--resolution $(if $(filter lowest,$*),lowest-direct,highest)
	.venv-$*/bin/python -m pytest $(QUICK)

# Damaged files for every reader: make fuzz MINUTES=60
MINUTES ?= 10
fuzz: .venv/ready-test
	$(RUN) tests/fuzz/readers.py $(MINUTES)

lint: .venv/ready-test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: .venv/ready-test
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf .venv build dist *.egg-info
