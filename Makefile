# make sweep and make test work first thing on a fresh machine; the rest is for working on it.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DOCS_READY := .venv/.docs
PEERS_READY := .venv-peers/.ready
SOURCES := nodebench tests benchmarks docs/site

.PHONY: sweep resume help test fast-tests test-slow torture bench bench-peers check lint types format lock docs dist ui clean

unexport PYTHONDONTWRITEBYTECODE # in containers it is often set, and each new Python compiles torch again

sweep: sweep-quickstart ## Run sweeps/quickstart.yaml, or resume it

sweep-%: $(READY) ## Run sweeps/<name>.yaml, or resume it
	$(BIN)/nodebench run sweeps/$*.yaml

small-%: $(READY) ## The same in its small form, minutes on two cores
	$(BIN)/nodebench run sweeps/$*.yaml --small

medium-%: $(READY) ## The same in its medium form, nearly the study, hours on two cores
	$(BIN)/nodebench run sweeps/$*.yaml --size medium

resume: sweep ## Same as `sweep`: runs only what is missing

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

test: check fast-tests ## Lint, types, layers and the fast tests

# Each of the two processes has a core; more threads would wait for each other.
fast-tests: export OMP_NUM_THREADS = 1
fast-tests: $(READY)
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(READY) ## The tests that take minutes
	$(BIN)/pytest -m slow

torture: $(READY) ## Sixty trials, fifty kill -9: nothing lost, nothing twice (some 20 minutes)
	$(BIN)/python -m tests.system.torture

bench: $(READY) ## Our speed compared with torchdiffeq, DataLoader, plain Ray Tune and bench-peers (an hour; NAMES=...)
	$(BIN)/python -m benchmarks $(NAMES)

bench-peers: $(PEERS_READY) ## JAX, diffrax and torchode, in an environment of their own, for make bench

check: lint types ## Lint, types and layers

lint: $(READY)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/lint-imports

types: $(READY)
	$(BIN)/pyrefly check

format: $(READY) ## Format the code
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

docs: $(DOCS_READY) ## The documentation as a site: site/html/index.html
	$(BIN)/python -m docs.site.build

dist: $(READY) ## The sdist and the wheel, checked: dist/
	rm -rf dist
	$(BIN)/python -m hatchling build -t sdist -t wheel
	$(BIN)/twine check --strict dist/*

ui: $(READY) ## MLflow's pages with this machine's runs, on 127.0.0.1
	$(BIN)/nodebench ui

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip sync --quiet --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $(READY)

# torchode runs with this project's torch, and so comes without its dependencies.
$(PEERS_READY): $(READY) benchmarks/peers/requirements.txt benchmarks/peers/torchode.txt
	$(PYTHON) -m venv --clear .venv-peers
	$(BIN)/uv pip install --quiet --python .venv-peers/bin/python --requirements benchmarks/peers/requirements.txt
	$(BIN)/uv pip install --quiet --python .venv-peers/bin/python --no-deps --requirements benchmarks/peers/torchode.txt
	touch $(PEERS_READY)

$(DOCS_READY): $(READY) requirements-docs.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --requirements requirements-docs.lock
	touch $(DOCS_READY)

lock: $(READY) ## Resolve the newest versions that go together into requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --generate-hashes --upgrade \
		--no-header --quiet --output-file requirements.lock
	$(BIN)/python -c "$(PRINT_DOCS)" | $(BIN)/uv pip compile - --constraint requirements.lock --universal \
		--generate-hashes --upgrade --no-header --no-annotate --quiet --output-file requirements-docs.lock

# Packages of the extra `docs` alone: what the project needs is in the other lock.
PRINT_DOCS := import tomllib; \
	print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'], sep='\n')

clean: ## Remove the virtual environment; runs and reports stay
	rm -rf .venv .venv-peers
