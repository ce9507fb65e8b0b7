# make sweep and make test work first thing on a fresh machine; the rest is for working on it.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: sweep resume test test-slow torture bench check format lock ui clean

sweep: sweep-quickstart ## Run sweeps/quickstart.yaml, or go on with it

sweep-%: $(READY) ## Run sweeps/<name>.yaml, or go on with it
	$(BIN)/nodebench run sweeps/$*.yaml

small-%: $(READY) ## The same in its small form, minutes on two cores
	$(BIN)/nodebench run sweeps/$*.yaml --small

medium-%: $(READY) ## The same in its medium form, nearly the study, hours on two cores
	$(BIN)/nodebench run sweeps/$*.yaml --size medium

resume: sweep ## The same: what is missing is run, and nothing twice

test: check ## Lint, types, layers and the fast tests
	$(BIN)/pytest -n 2 --dist loadfile

test-slow: $(READY) ## The tests that take minutes
	$(BIN)/pytest -m slow

torture: $(READY) ## Sixty trials, fifty kill -9: nothing lost, nothing twice (some 20 minutes)
	$(BIN)/python -m tests.system.torture

bench: $(READY) ## Our speed beside torchdiffeq, DataLoader, plain Ray Tune (an hour; NAMES=...)
	$(BIN)/python -m benchmarks $(NAMES)

check: $(READY)
	$(BIN)/ruff check nodebench tests benchmarks
	$(BIN)/ruff format --check nodebench tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## Format the code
	$(BIN)/ruff check --fix nodebench tests benchmarks
	$(BIN)/ruff format nodebench tests benchmarks

ui: $(READY) ## MLflow's pages with this machine's runs, on 127.0.0.1
	$(BIN)/nodebench ui

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip sync --quiet --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $(READY)

lock: $(READY) ## Resolve the newest versions that go together into requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --generate-hashes --upgrade \
		--no-header --quiet --output-file requirements.lock

clean: ## Remove the virtual environment; runs and reports stay
	rm -rf .venv
