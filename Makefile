# make reproduce: make every figure and number of the study    make test: check the project
# Both set themselves up in .venv. PYTHON names another interpreter (3.11 or later), VENV another folder.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STUDY := $(VENV)/.helixlab-study
READY := $(VENV)/.helixlab-ready
PIP_INSTALL := PYTHONWARNINGS=ignore::UserWarning $(BIN)/python -m pip install -q --no-compile \
  --disable-pip-version-check

# pip would compile all that it installs, of which little is used. Python compiles what it imports, and keeps it.
USED := cvxpy, ipykernel.kernelapp, matplotlib.backends.backend_pdf, papermill, helixlab.reproduce.study, helixlab.plotting
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup test reproduce bench docs notebooks clean

help:
	@echo "make reproduce   make every figure and number of the study, into figures/"
	@echo "make test        style, types, tests and doctests"
	@echo "make bench       how long the slow parts take"
	@echo "make docs        the documentation, into build/docs"
	@echo "make notebooks   open the notebooks in JupyterLab"
	@echo "make setup       only prepare $(VENV)"
	@echo "make clean       remove caches and build outputs ($(VENV) and figures/ stay)"

setup: $(READY)

# What the study needs. What numba compiles is compiled while Jupyter is being installed.
$(STUDY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "helixlab needs Python 3.11 or later: install one and name it, as in 'make test PYTHON=python3.12'." >&2; \
	  exit 1; }
	@[ -x $(BIN)/pip ] || { echo "Preparing $(VENV) (a few minutes the first time)"; \
	  rm -rf $(VENV); $(PYTHON) -m venv $(VENV); } || { rm -rf $(VENV); \
	  echo "No virtual environment could be made: install Python's venv module (Debian: python3-venv)." >&2; \
	  exit 1; }
	@$(PIP_INSTALL) -e .
	@$(BIN)/python -c 'import helixlab.simulation, helixlab.planning.annealing, helixlab.planning.beam_search' & \
	  $(PIP_INSTALL) -e '.[notebooks]' && wait
	@$(BIN)/python -c 'import $(USED)'
	@touch $@

# And what the tests need.
$(READY): $(STUDY)
	@$(PIP_INSTALL) -e '.[notebooks,test]'
	@touch $@

test: $(READY)
	$(BIN)/ruff check -q .
	$(BIN)/ruff format -q --check .
	$(BIN)/mypy --no-error-summary
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

reproduce: $(STUDY)
	$(BIN)/helixlab reproduce --scale full

bench: $(READY)
	$(BIN)/python -m pytest tests/benchmarks -q --benchmark-only --benchmark-sort=name \
	  --benchmark-columns=min,median,max,rounds

docs: $(READY)
	$(BIN)/python -m sphinx -q -W --keep-going -d build/doctrees docs build/docs
	@echo "Open build/docs/index.html"

notebooks: $(STUDY)
	$(BIN)/jupyter lab notebooks

clean:
	rm -rf build dist docs/generated .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	find $(wildcard helixlab data tests notebooks) \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
