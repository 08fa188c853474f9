# `make demo` tells the story with real processes; `make test` passes the tests. Both set themselves up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Fleets are many processes: without bytecode kept beside the source each would compile two hundred modules anew,
# more than half of what starting an agent costs.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test prove bench lint fleet clean

demo: $(STAMP)
	$(BIN)/dislocate demo

# Each live test has a loopback network of its own and mostly waits: four side by side keep two cores busy.
test: $(STAMP) lint
	$(BIN)/pytest -n 4 --dist loadfile

# Two minutes with real processes: services, callers in three data centers, and all that may happen to them.
fleet: $(STAMP)
	$(BIN)/dislocate dev --scenario scenarios/balancing/whole-story.toml

# The same tests with full counts: every seed, every round.
prove: $(STAMP) lint
	DISLOCATE_PROFILE=full $(BIN)/pytest -n 2 --dist loadfile -m "not live"
	DISLOCATE_PROFILE=full $(BIN)/pytest -n 2 --dist loadfile -m live

bench: $(STAMP)
	$(BIN)/python -m bench

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --group dev --editable .
	@touch $@

clean:
	rm -rf $(VENV) .bench .pytest_cache .mypy_cache .ruff_cache .hypothesis
